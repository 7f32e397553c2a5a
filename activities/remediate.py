"""Applies one approved action, once.

The order is the point: the broker verifies the signed bytes, the remedy reads its target, the ledger records what is
about to change, and only then does anything change. An attempt that finds the ledger saying "begun" belongs to one that
died in between; it reads back first, and writes again only where a second write is harmless.
"""

from typing import Any

from pydantic import SecretStr

from activities.implements import implements
from oncall.access.write import Claim, WriteBroker
from oncall.config import References
from oncall.model.access import AccessRequest, Intent
from oncall.model.action import ActionResult, Outcome
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.steps import REMEDIATE, RemediateIn
from oncall.remedies.catalogue import Catalogue
from oncall.remedies.remedy import Applied, Effect, Proof, Reading, Remedy, Session
from oncall.trust.requests import action_digest, parse_request, request_digest


class Remediation:
    """The write side of a worker: its broker, and the catalogue of what it can do."""

    def __init__(self, broker: WriteBroker, references: References | None = None) -> None:
        self._broker = broker
        self._catalogue = Catalogue(references or References())

    @implements(REMEDIATE)
    async def remediate(self, task: RemediateIn) -> ActionResult:
        """What became of the action.

        - `refused`: the broker said no, or the target is not what was approved any more; nothing was changed;
        - `skipped`: there is nothing to change;
        - `succeeded`: the change is on the target, and the target shows what it was for;
        - `failed`: nothing was changed, or it was and the target does not show what it was for (`verified` false);
        - `unknown`: nobody can say whether the change is on the target. Also when an earlier attempt has begun and the
          broker says no to this one, and whenever the ledger, which would know of such an attempt, is broken.

        Raises Terminal(REQUEST_MISMATCH) for bytes that are no write request, and Retryable while the vault or the
        target is away; a retry then goes on where the ledger says that this one stopped. Once retries are used up, the
        outcome is unknown to whoever called, because the ledger may say "begun".
        """
        try:
            claim = await self._broker.claim(task.request, task.decisions)
        except Terminal as refusal:
            return await self._refused(task.request, refusal)
        if claim.ended is not None:
            return claim.ended
        # From here on only what the broker has verified is used.
        result = _blank(claim.request, claim.digest)
        result = await self._perform(claim, _intent(claim.request), result)
        result = _with(result, secret_requests=self._broker.take_secret_requests())
        try:
            # Of two attempts that both got here the ledger keeps one, and that is what happened.
            return self._broker.end(claim, result)
        except Terminal as failure:
            detail = f"the outcome cannot be recorded: {failure.message}; it was: {result.outcome}"
            return _with(result, outcome=Outcome.UNKNOWN, verified=False, detail=detail, error_code=failure.code)

    async def _refused(self, text: str, refusal: Terminal) -> ActionResult:
        """The broker's refusal as a result, so that the incident goes on with manual steps."""
        request = parse_request(text)
        digest = request_digest(request)
        result = _blank(request, digest)
        result = _with(result, secret_requests=self._broker.take_secret_requests())
        if refusal.code is not ErrorCode.LEDGER_BROKEN and await self._broker.may_have_begun(digest):
            detail = f"an earlier attempt has begun, and cannot be picked up: {refusal.message}"
            return _with(result, outcome=Outcome.UNKNOWN, detail=detail, error_code=refusal.code)
        return _no(result, refusal)

    async def _perform(self, claim: Claim, intent: Intent, result: ActionResult) -> ActionResult:
        session = Session(claim.digest, _Bound(self._broker, claim))
        remedy = self._catalogue.remedy(intent.parameters)
        if claim.begun is not None:
            return await self._resume(remedy, intent, session, Reading(values=claim.begun), result)
        try:
            before = await remedy.precheck(intent.parameters, session)
            result = _with(result, before=before.values)
            if before.nothing:
                return _with(result, outcome=Outcome.SKIPPED, after=before.values, detail=before.detail)
            self._broker.begin(claim, before.values)
        except Terminal as refusal:
            return _no(result, refusal)
        try:
            effect = await remedy.apply(intent.parameters, session, before)
        except Terminal as refusal:
            changed = refusal.code is ErrorCode.TARGET_CHANGED
            outcome = Outcome.REFUSED if changed else Outcome.FAILED
            return _with(result, outcome=outcome, detail=refusal.message, error_code=refusal.code)
        return await _prove(remedy, intent, session, before, effect, result)

    async def _resume(
        self, remedy: Remedy[Any], intent: Intent, session: Session, before: Reading, result: ActionResult
    ) -> ActionResult:
        """Goes on after an attempt that died between the ledger's "begun" and its "ended"."""
        result = _with(result, outcome=Outcome.UNKNOWN, before=before.values)
        try:
            effect = await remedy.read_back(intent.parameters, session, before)
            if effect is None:
                if not remedy.repeatable:
                    return _with(result, detail="an earlier attempt was interrupted, and its effect is not visible")
                effect = await remedy.apply(intent.parameters, session, before)
        except Terminal as refusal:
            detail = f"an earlier attempt was interrupted; reading back: {refusal.message}"
            return _with(result, detail=detail, error_code=refusal.code)
        return await _prove(remedy, intent, session, before, effect, result)


class _Bound:
    """The broker's secrets, as one claim may see them."""

    def __init__(self, broker: WriteBroker, claim: Claim) -> None:
        self._broker = broker
        self._claim = claim

    async def reveal(self, reference: str) -> SecretStr:
        return await self._broker.reveal(self._claim, reference)


async def _prove(
    remedy: Remedy[Any], intent: Intent, session: Session, before: Reading, effect: Effect, result: ActionResult
) -> ActionResult:
    result = _with(result, after=effect.values, detail=effect.detail)
    if effect.applied is Applied.UNKNOWN:
        return _with(result, outcome=Outcome.UNKNOWN)
    if effect.applied is Applied.NO:
        return _with(result, outcome=Outcome.FAILED)
    try:
        proof: Proof = await remedy.verify(intent.parameters, session, before, effect)
    except Terminal as refusal:
        detail = f"applied, but it cannot be verified: {refusal.message}"
        return _with(result, outcome=Outcome.UNKNOWN, detail=detail, error_code=refusal.code)
    result = _with(result, after=proof.values, detail=proof.detail, verified=proof.verified)
    if proof.verified:
        return _with(result, outcome=Outcome.SUCCEEDED)
    result = _with(result, outcome=Outcome.FAILED)
    if not proof.harm:
        return result
    try:
        return _with(result, rolled_back=await remedy.rollback(intent.parameters, session, effect))
    except Terminal as refusal:
        detail = f"{proof.detail}; not rolled back: {refusal.message}"
        return _with(result, detail=detail, error_code=refusal.code)


def _intent(request: AccessRequest) -> Intent:
    if request.intent is None:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "the request asks for no action")
    return request.intent


def _blank(request: AccessRequest, digest: str) -> ActionResult:
    """The result while nothing has been changed."""
    intent = _intent(request)
    action = action_digest(intent.parameters, intent.target)
    return ActionResult(action_digest=action, request_digest=digest, outcome=Outcome.REFUSED)


def _no(result: ActionResult, refusal: Terminal) -> ActionResult:
    """The result of an attempt that changed nothing, unless a ledger that cannot be read hides one that did."""
    outcome = Outcome.UNKNOWN if refusal.code is ErrorCode.LEDGER_BROKEN else Outcome.REFUSED
    return _with(result, outcome=outcome, detail=refusal.message, error_code=refusal.code)


def _with(result: ActionResult, **changes: Any) -> ActionResult:
    # Validated again: model_copy would take an enum or a wrong type as it is.
    return ActionResult.model_validate({**result.model_dump(), **changes})
