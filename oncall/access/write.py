"""WRITE access: one approved request opens exactly one effect, once. Investigating code must never import this."""

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError

from oncall.access.broker import (
    Authority,
    Clock,
    Refusals,
    check,
    check_open,
    check_policy_unchanged,
    check_row,
    check_signed,
    utc_now,
)
from oncall.access.connect import Vault
from oncall.access.ledger import Entry, EntryKind, Ledger
from oncall.access.references import Reference
from oncall.model.access import AccessKind, AccessRequest, Approvers, Decision
from oncall.model.action import ActionResult
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.policy import Policy
from oncall.trust.requests import action_digest, parse_request, request_digest


@dataclass(frozen=True)
class Claim:
    """The right to one effect, and what the ledger knows of it.

    `resumed`: an earlier attempt already held it. `begun`: what `begin` stored, None when no effect was begun.
    `ended`: the result that `end` stored; then there is nothing left to do but to return it.
    """

    request: AccessRequest
    digest: str
    resumed: bool
    begun: dict[str, Any] | None
    ended: ActionResult | None


class WriteBroker:
    """Turns a signed WRITE request into one claim, and a claim into the secrets that the request lists."""

    def __init__(
        self, vault: Vault, ledger: Ledger, approvers: Approvers, policy: Policy, clock: Clock = utc_now
    ) -> None:
        self._vault = vault
        self._ledger = ledger
        self._authority = Authority(approvers, policy, ledger.ledger_id)
        self._clock = clock
        # Apart, so that a flood of bad requests leaves room for what is refused under a good one.
        self._refused_requests, self._refused_claims = Refusals(ledger), Refusals(ledger)

    def take_secret_requests(self) -> int:
        """HTTP requests made to the vault since this was last called."""
        return self._vault.take_requests()

    async def claim(self, request_text: str, decisions: tuple[Decision, ...]) -> Claim:
        """Claims the one effect that these signatures allow, durably and before anything is looked up.

        A retry gets the same claim with `resumed`. The ledger's rows are never enough: whoever can append to the file
        could write them, so the signatures are verified every time, those given and those in the claim's row. Once an
        effect has begun it must be accounted for, and only what passes with time is let go: the claim is handed back
        after its end, under a brake, and under a policy that has changed since, as long as that still says approve.
        `reveal` refuses the secrets in each of these cases, so that the effect cannot be read back and its outcome is
        unknown: nobody signed under today's policy. When the signatures do not hold any more (the policy forbids the
        action, the approver has left the list), there is no claim at all, and `may_have_begun` says what is known.

        Raises what `check` and `check_open` raise, LEDGER_BROKEN for a claim's row that no claim wrote; every Terminal
        is recorded as a refusal, once.
        """
        try:
            return await self._claim(request_text, decisions)
        except Terminal as refusal:
            await asyncio.to_thread(self._refused_requests.of_text, request_text, refusal, "claim a write")
            raise

    async def may_have_begun(self, digest: str) -> bool:
        """Whether an effect under this request's digest has begun, or the ledger cannot be read to exclude it.

        On the ledger's word alone, so it is worth nothing but doubt: after a refusal, whether an earlier attempt may
        have changed the target.
        """
        try:
            return await asyncio.to_thread(self._ledger.find, EntryKind.EFFECT_BEGIN, digest) is not None
        except Terminal:
            return True

    async def reveal(self, claim: Claim, reference: str) -> SecretStr:
        """The secret behind a reference that the signed request lists; the release is in the ledger first.

        Raises Terminal: GRANT_UNKNOWN (the ledger does not know the claim), GRANT_SCOPE, GRANT_EXPIRED, GRANT_REVOKED,
        HALTED, POLICY_FORBIDS (the policy has changed), ALREADY_USED (the effect has ended), what `check` raises when
        the claim's signatures do not hold, and what `Vault.resolve` raises.
        """
        try:
            request = await asyncio.to_thread(self._claimed, claim.digest)
            if reference not in request.references:
                raise Terminal(ErrorCode.GRANT_SCOPE, f"{reference[:200]!r} is not part of the signed request")
            await asyncio.to_thread(self._check_usable, claim.digest, request)
            body = {"reference": reference, "holder": f"action {action_digest_of(request)}"}
            await asyncio.to_thread(self._ledger.append, EntryKind.RELEASE, claim.digest, body)
            secret = await self._vault.resolve(Reference.parse(reference))
            await asyncio.to_thread(self._check_usable, claim.digest, request)
        except Terminal as refusal:
            await asyncio.to_thread(self._refused_claims.of_digest, claim.digest, refusal, "reveal", reference)
            raise
        return secret

    def begin(self, claim: Claim, detail: dict[str, Any]) -> None:
        """Records, immediately before the effect, that it begins; `detail` is what a retry needs to read it back.

        Not async, so that nothing can happen between the row and the effect. Raises Retryable(ALREADY_USED) when
        another attempt has begun it: claim again and read back. Raises Terminal as `reveal` does when the claim has
        ended meanwhile.
        """
        try:
            request = self._claimed(claim.digest)
            self._check_usable(claim.digest, request)
        except Terminal as refusal:
            self._refused_claims.of_digest(claim.digest, refusal, "begin an effect")
            raise
        body = {"action_digest": action_digest_of(request), "detail": detail}
        _, mine = self._ledger.append_once(EntryKind.EFFECT_BEGIN, claim.digest, body)
        if not mine:
            raise Retryable(ErrorCode.ALREADY_USED, "another attempt has begun this effect: claim again and read back")

    def end(self, claim: Claim, result: ActionResult) -> ActionResult:
        """Stores the outcome and returns it; of two attempts the first to end wins, and both get its result.

        Raises Terminal(REQUEST_MISMATCH) for a result of another action, Terminal(GRANT_UNKNOWN) without a claim.
        """
        request = self._claimed(claim.digest)
        if (result.request_digest, result.action_digest) != (claim.digest, action_digest_of(request)):
            raise Terminal(ErrorCode.REQUEST_MISMATCH, "the result is of another action than the claim's")
        body = {"result": result.model_dump(mode="json")}
        entry, _ = self._ledger.append_once(EntryKind.EFFECT_END, claim.digest, body)
        return _result(entry)

    async def _claim(self, text: str, decisions: tuple[Decision, ...]) -> Claim:
        digest = request_digest(parse_request(text))
        begun, ended = await asyncio.to_thread(self._progress, digest)
        if begun is not None or ended is not None:
            check_signed(text, decisions, AccessKind.WRITE, self._authority, self._clock())
        else:
            approved = check(text, decisions, AccessKind.WRITE, self._authority, self._clock())
            await asyncio.to_thread(check_open, self._ledger, digest, approved.request, self._clock())
            for reference in approved.request.references:
                Reference.parse(reference)
            body = {**approved.row(), "action_digest": action_digest_of(approved.request)}
            _, first = await asyncio.to_thread(self._ledger.append_once, EntryKind.CLAIM, digest, body)
            if first:
                return Claim(approved.request, digest, False, None, None)
            # Another attempt may have begun between the look above and the claim.
            begun, ended = await asyncio.to_thread(self._progress, digest)
        request = await asyncio.to_thread(self._claimed, digest)
        return Claim(
            request,
            digest,
            True,
            _detail(begun) if begun is not None else None,
            _result(ended) if ended is not None else None,
        )

    def _progress(self, digest: str) -> tuple[Entry | None, Entry | None]:
        begun = self._ledger.find(EntryKind.EFFECT_BEGIN, digest)
        return begun, self._ledger.find(EntryKind.EFFECT_END, digest)

    def _claimed(self, digest: str) -> AccessRequest:
        entry = self._ledger.find(EntryKind.CLAIM, digest)
        if entry is None:
            raise Terminal(ErrorCode.GRANT_UNKNOWN, f"the ledger has no claim {digest[:100]!r}")
        # From the ledger, not from the claim object: what was signed decides, whoever built the object.
        return check_row(entry, AccessKind.WRITE, self._authority, self._clock())

    def _check_usable(self, digest: str, request: AccessRequest) -> None:
        check_policy_unchanged(request, self._authority.policy)
        check_open(self._ledger, digest, request, self._clock())
        if self._ledger.find(EntryKind.EFFECT_END, digest) is not None:
            raise Terminal(ErrorCode.ALREADY_USED, "the effect that was approved has ended")


def action_digest_of(request: AccessRequest) -> str:
    """The `action_digest` of a WRITE request's intent. Raises Terminal(REQUEST_MISMATCH) without one."""
    if request.intent is None:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "the request has no intent")
    return action_digest(request.intent.parameters, request.intent.target)


def _detail(entry: Entry) -> dict[str, Any]:
    detail = entry.body.get("detail")
    if not isinstance(detail, dict):
        raise Terminal(ErrorCode.LEDGER_BROKEN, f"row {entry.seq} of the ledger is not the beginning of an effect")
    return detail


def _result(entry: Entry) -> ActionResult:
    try:
        return ActionResult.model_validate(entry.body["result"])
    except (KeyError, ValidationError):
        raise Terminal(ErrorCode.LEDGER_BROKEN, f"row {entry.seq} of the ledger is not a result") from None
