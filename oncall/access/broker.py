"""What both brokers check before anything is opened. Pure, but for the ledger that they read and write.

Nothing here believes what comes from Temporal: the list of approvers, the policy, the ledger and the clock are the
worker's own, and the request counts only as the bytes that a person signed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from oncall.access.ledger import EntryKind, Ledger
from oncall.model.access import NAMESPACE_DECISION, AccessKind, AccessRequest, Approvers, Decision
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.policy import Policy, Verdict
from oncall.trust.requests import decision_bytes, parse_request, policy_digest, request_digest
from oncall.trust.ssh import Signer, verify

Clock = Callable[[], datetime]

CLOCK_SKEW = timedelta(seconds=60)
"""How far the approver's clock may be ahead of this worker's."""

MAX_DECISIONS = 16


@dataclass(frozen=True)
class Authority:
    """The worker's own facts, against which every request is held."""

    approvers: Approvers
    policy: Policy
    ledger_id: str


@dataclass(frozen=True)
class Approved:
    """A request that people said yes to, its digest, and who they are."""

    request: AccessRequest
    digest: str
    signers: tuple[Signer, ...]


def utc_now() -> datetime:
    """The host's time, UTC."""
    return datetime.now(UTC)


def check(
    text: str, decisions: tuple[Decision, ...], kind: AccessKind, authority: Authority, now: datetime
) -> Approved:
    """The request that `text` says, once it is certain that this worker may act on it at `now`.

    Raises Terminal: REQUEST_MISMATCH (not canonical, another kind, impossible times, or a decision on other bytes),
    LEDGER_FOREIGN, POLICY_FORBIDS (another policy than this worker's, a verdict that this yes does not satisfy, too
    long a grant, or a verified no), REQUEST_EXPIRED (decided or used outside its time), SIGNATURE_REFUSED,
    NOT_AN_APPROVER.
    """
    request = parse_request(text)
    digest = request_digest(request)
    if request.kind is not kind:
        raise Terminal(
            ErrorCode.REQUEST_MISMATCH, f"this is a {request.kind} request, and {kind} is what is opened here"
        )
    if (request.intent is None) is (kind is AccessKind.WRITE):
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "a write request has an intent, and a read request has none")
    if not request.references or len(set(request.references)) != len(request.references):
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "a request lists at least one reference, and each once")
    if request.ledger_id != authority.ledger_id:
        raise Terminal(ErrorCode.LEDGER_FOREIGN, f"the request is for another ledger than {authority.ledger_id}")
    _check_policy(request, authority.policy)
    _check_times(request, now)
    signers = _check_decisions(request, digest, decisions, authority.approvers, now)
    return Approved(request, digest, signers)


def check_open(ledger: Ledger, digest: str, request: AccessRequest, now: datetime) -> None:
    """Raises Terminal (GRANT_EXPIRED, GRANT_REVOKED or HALTED) unless what was opened still is."""
    if now >= request.grant_expires_at:
        raise Terminal(ErrorCode.GRANT_EXPIRED, f"the grant ended at {request.grant_expires_at:%Y-%m-%d %H:%M:%S} UTC")
    if now + CLOCK_SKEW < request.not_before:
        raise Terminal(ErrorCode.REQUEST_EXPIRED, f"the grant begins at {request.not_before:%Y-%m-%d %H:%M:%S} UTC")
    check_brakes(ledger, digest, request.incident_id)


def check_brakes(ledger: Ledger, digest: str, incident_id: str) -> None:
    """Raises Terminal(GRANT_REVOKED) or Terminal(HALTED) when a brake in the ledger is on.

    A halt whose body names an incident (`incident_id`) stops that one, any other stops everything; a resume with the
    same scope, or one without, lifts it.
    """
    halted: set[str | None] = set()
    for entry in ledger.entries(kinds=(EntryKind.REVOKE, EntryKind.HALT, EntryKind.RESUME)):
        scope = entry.body.get("incident_id")
        if entry.kind is EntryKind.REVOKE and entry.request_digest == digest:
            raise Terminal(ErrorCode.GRANT_REVOKED, f"the grant was revoked at {entry.at:%Y-%m-%d %H:%M:%S} UTC")
        if entry.kind is EntryKind.HALT:
            halted.add(scope)
        elif entry.kind is EntryKind.RESUME:
            halted = {other for other in halted if other != scope} if scope is not None else set()
    if None in halted or incident_id in halted:
        raise Terminal(ErrorCode.HALTED, "everything is halted" if None in halted else f"{incident_id} is halted")


def record_refusal(ledger: Ledger, text: str, refusal: Terminal, what: str) -> None:
    """Appends a refusal under the digest of the request, or of the raw text when it is no request."""
    try:
        digest = request_digest(parse_request(text))
    except Terminal:
        digest = "sha256:" + hashlib.sha256(b"oncall.unreadable\0" + text.encode(errors="replace")).hexdigest()
    record_refusal_of(ledger, digest, refusal, what)


def record_refusal_of(ledger: Ledger, digest: str, refusal: Terminal, what: str) -> None:
    """Appends a refusal: what was asked for, the code and the message."""
    body = {"what": what, "code": str(refusal.code), "message": refusal.message[:500]}
    ledger.append(EntryKind.REFUSAL, digest, body)


def _check_policy(request: AccessRequest, policy: Policy) -> None:
    if request.policy_digest != policy_digest(policy):
        raise Terminal(ErrorCode.POLICY_FORBIDS, "the request was made under another policy than this worker's")
    if request.intent is None:
        what, verdict = "read access", policy.read
    else:
        what, verdict = request.intent.parameters.type, policy.rule(request.intent.parameters.type).verdict
    if verdict is not Verdict.APPROVE:
        # `auto` needs a signed delegation and `two_person` two people: neither exists yet, so neither opens anything.
        raise Terminal(ErrorCode.POLICY_FORBIDS, f"{what}: the verdict {verdict} opens nothing here; only approve does")
    lifetime = request.grant_expires_at - request.not_before
    if lifetime > timedelta(seconds=policy.max_grant_s):
        raise Terminal(
            ErrorCode.POLICY_FORBIDS,
            f"the grant would last {lifetime.total_seconds():.0f} s, and the policy allows {policy.max_grant_s} s",
        )


def _check_times(request: AccessRequest, now: datetime) -> None:
    if not request.not_before <= request.answer_by <= request.grant_expires_at:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "the request's times are not in order")
    if now >= request.grant_expires_at:
        raise Terminal(
            ErrorCode.REQUEST_EXPIRED, f"the request ended at {request.grant_expires_at:%Y-%m-%d %H:%M:%S} UTC"
        )
    if now + CLOCK_SKEW < request.not_before:
        raise Terminal(ErrorCode.REQUEST_EXPIRED, f"the request begins at {request.not_before:%Y-%m-%d %H:%M:%S} UTC")


def _check_decisions(
    request: AccessRequest, digest: str, decisions: tuple[Decision, ...], approvers: Approvers, now: datetime
) -> tuple[Signer, ...]:
    if not decisions:
        raise Terminal(ErrorCode.SIGNATURE_REFUSED, "nobody has decided on the request")
    if len(decisions) > MAX_DECISIONS:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, f"more than {MAX_DECISIONS} decisions on one request")
    signers: dict[str, Signer] = {}
    for decision in decisions:
        if decision.request_digest != digest:
            raise Terminal(ErrorCode.REQUEST_MISMATCH, "a decision is on another request than this one")
        at = decision.decided_at
        if at.utcoffset() is None:
            raise Terminal(ErrorCode.REQUEST_MISMATCH, "a decision's time has no time zone")
        signer = verify(decision.signature, decision_bytes(decision), NAMESPACE_DECISION, approvers, at)
        if not request.not_before <= at <= request.answer_by:
            raise Terminal(ErrorCode.REQUEST_EXPIRED, f"{signer.person} decided outside the time for an answer")
        if at > now + CLOCK_SKEW:
            raise Terminal(ErrorCode.REQUEST_EXPIRED, f"the decision of {signer.person} is dated in the future")
        if not decision.approved:
            raise Terminal(ErrorCode.POLICY_FORBIDS, f"{signer.person} said no")
        signers[signer.person] = signer
    return tuple(signers.values())
