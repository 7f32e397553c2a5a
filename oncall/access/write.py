"""WRITE access: one approved request opens exactly one effect, once. Investigating code must never import this."""

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError

from oncall.access.broker import (
    Authority,
    Clock,
    check,
    check_open,
    record_refusal,
    record_refusal_of,
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

    @property
    def secret_requests(self) -> int:
        """How many HTTP requests were made to the vault since the start."""
        return self._vault.requests

    def take_secret_requests(self) -> int:
        """How many were made since this was last called."""
        return self._vault.take_requests()

    async def claim(self, request_text: str, decisions: tuple[Decision, ...]) -> Claim:
        """Claims the one effect that these signatures allow, durably and before anything is looked up.

        A retry gets the same claim with `resumed`. Once an effect has begun, the claim is handed back on the ledger's
        word alone, even after its time: an effect that may have happened must be accounted for, while `reveal` still
        refuses the secrets. Raises what `check` and `check_open` raise; every Terminal is recorded as a refusal.
        """
        try:
            return await self._claim(request_text, decisions)
        except Terminal as refusal:
            await asyncio.to_thread(record_refusal, self._ledger, request_text, refusal, "claim a write")
            raise

    async def reveal(self, claim: Claim, reference: str) -> SecretStr:
        """The secret behind a reference that the signed request lists; the release is in the ledger first.

        Raises Terminal: GRANT_UNKNOWN (the ledger does not know the claim), GRANT_SCOPE, GRANT_EXPIRED, GRANT_REVOKED,
        HALTED, ALREADY_USED (the effect has ended), and what `Vault.resolve` raises.
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
            what = f"reveal {reference[:200]}"
            await asyncio.to_thread(record_refusal_of, self._ledger, claim.digest[:100], refusal, what)
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
            record_refusal_of(self._ledger, claim.digest[:100], refusal, "begin an effect")
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
        begun = await asyncio.to_thread(self._ledger.find, EntryKind.EFFECT_BEGIN, digest)
        ended = await asyncio.to_thread(self._ledger.find, EntryKind.EFFECT_END, digest)
        if begun is None and ended is None:
            approved = check(text, decisions, AccessKind.WRITE, self._authority, self._clock())
            await asyncio.to_thread(check_open, self._ledger, digest, approved.request, self._clock())
            for reference in approved.request.references:
                Reference.parse(reference)
            body = {
                "request": text,
                "action_digest": action_digest_of(approved.request),
                "approvers": [signer.person for signer in approved.signers],
                "keys": [signer.fingerprint for signer in approved.signers],
            }
            _, first = await asyncio.to_thread(self._ledger.append_once, EntryKind.CLAIM, digest, body)
            if first:
                return Claim(approved.request, digest, False, None, None)
            # Another attempt may have begun between the look above and the claim.
            begun = await asyncio.to_thread(self._ledger.find, EntryKind.EFFECT_BEGIN, digest)
            ended = await asyncio.to_thread(self._ledger.find, EntryKind.EFFECT_END, digest)
        request = await asyncio.to_thread(self._claimed, digest)
        return Claim(
            request,
            digest,
            True,
            dict(begun.body["detail"]) if begun is not None else None,
            _result(ended) if ended is not None else None,
        )

    def _claimed(self, digest: str) -> AccessRequest:
        entry = self._ledger.find(EntryKind.CLAIM, digest)
        if entry is None:
            raise Terminal(ErrorCode.GRANT_UNKNOWN, f"the ledger has no claim {digest[:100]!r}")
        # From the ledger, not from the claim object: what was signed decides, whoever built the object.
        request = parse_request(str(entry.body.get("request")))
        if request_digest(request) != digest or request.kind is not AccessKind.WRITE:
            raise Terminal(ErrorCode.LEDGER_BROKEN, "a claim in the ledger is not what its digest says")
        return request

    def _check_usable(self, digest: str, request: AccessRequest) -> None:
        check_open(self._ledger, digest, request, self._clock())
        if self._ledger.find(EntryKind.EFFECT_END, digest) is not None:
            raise Terminal(ErrorCode.ALREADY_USED, "the effect that was approved has ended")


def action_digest_of(request: AccessRequest) -> str:
    """The `action_digest` of a WRITE request's intent. Raises Terminal(REQUEST_MISMATCH) without one."""
    if request.intent is None:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "the request has no intent")
    return action_digest(request.intent.parameters, request.intent.target)


def _result(entry: Entry) -> ActionResult:
    try:
        return ActionResult.model_validate(entry.body["result"])
    except (KeyError, ValidationError):
        raise Terminal(ErrorCode.LEDGER_BROKEN, f"row {entry.seq} of the ledger is not a result") from None
