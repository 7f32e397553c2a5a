"""What both brokers check before anything is opened. Pure, but for the ledger that they read and write.

Nothing here believes what comes from Temporal: the list of approvers, the policy, the ledger and the clock are the
worker's own, and the request counts only as the bytes that a person signed.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oncall.access.ledger import Entry, EntryKind, Ledger
from oncall.model.access import NAMESPACE_DECISION, AccessKind, AccessRequest, Approvers, Decision
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.policy import Policy, Verdict
from oncall.rules.approvals import CLOCK_SKEW
from oncall.rules.asking import longest_grant
from oncall.trust.requests import decision_bytes, parse_request, policy_digest, request_digest, request_text
from oncall.trust.ssh import Signer, verify

_DECISIONS = TypeAdapter(tuple[Decision, ...])

Clock = Callable[[], datetime]

MAX_DECISIONS = 16

MAX_REFUSALS = 10_000
"""Refusals that one `Refusals` records: bad requests cost their sender nothing, and each row a sync to disk."""


@dataclass(frozen=True)
class Authority:
    """The worker's own facts, against which every request is held."""

    approvers: Approvers
    policy: Policy
    ledger_id: str


@dataclass(frozen=True)
class Approved:
    """A request that people said yes to, its digest, their decisions, and who they are."""

    request: AccessRequest
    digest: str
    decisions: tuple[Decision, ...]
    signers: tuple[Signer, ...]

    def row(self) -> dict[str, Any]:
        """The body of the ledger's row about it: all that `check_row` needs to believe it again."""
        return {
            "request": request_text(self.request),
            "decisions": [decision.model_dump(mode="json") for decision in self.decisions],
            "approvers": [signer.person for signer in self.signers],
            "keys": [signer.fingerprint for signer in self.signers],
        }


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
    approved = check_signed(text, decisions, kind, authority, now)
    check_policy_unchanged(approved.request, authority.policy)
    if now >= approved.request.grant_expires_at:
        ended = f"{approved.request.grant_expires_at:%Y-%m-%d %H:%M:%S}"
        raise Terminal(ErrorCode.REQUEST_EXPIRED, f"the request ended at {ended} UTC")
    return approved


def check_signed(
    text: str, decisions: tuple[Decision, ...], kind: AccessKind, authority: Authority, now: datetime
) -> Approved:
    """As `check`, but for a request that may have ended by now, or was made under another policy than today's.

    What is in the ledger already is held against this: whoever can append rows must gain nothing by it. Today's policy
    must still say approve. It is not enough to open anything: that needs `check`, or `check_policy_unchanged` and
    `check_open`.
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
    return Approved(request, digest, decisions, signers)


def check_row(entry: Entry, kind: AccessKind, authority: Authority, now: datetime) -> AccessRequest:
    """The request in the row of a grant or a claim. A row proves nothing by being there, but by the signatures in it.

    Raises what `check_signed` raises, and Terminal(LEDGER_BROKEN) for a row that no broker wrote.
    """
    text = str(entry.body.get("request"))
    try:
        decisions = _DECISIONS.validate_python(entry.body.get("decisions"))
    except ValidationError:
        raise Terminal(ErrorCode.LEDGER_BROKEN, f"row {entry.seq} of the ledger holds no decisions") from None
    if request_digest(parse_request(text)) != entry.request_digest:
        raise Terminal(ErrorCode.LEDGER_BROKEN, f"row {entry.seq} of the ledger is not what its digest says")
    return check_signed(text, decisions, kind, authority, now).request


def check_policy_unchanged(request: AccessRequest, policy: Policy) -> None:
    """Raises Terminal(POLICY_FORBIDS) when the request was made under another policy than this worker's."""
    if request.policy_digest != policy_digest(policy):
        raise Terminal(ErrorCode.POLICY_FORBIDS, "the request was made under another policy than this worker's")


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


class Refusals:
    """Writes a process's refusals into the ledger: once each, and no more than `MAX_REFUSALS`.

    A hundred and fifty agents of a revoked grant are one fact, not a hundred and fifty rows. When the last row is used
    up, it says that later ones are missing. Safe to share between threads.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._recorded: set[tuple[str, ErrorCode, str]] = set()
        self._lock = threading.Lock()

    def of_text(self, text: str, refusal: Terminal, what: str) -> None:
        """Records under the digest of the request, or of the raw text when it is no request."""
        try:
            digest = request_digest(parse_request(text))
        except Terminal:
            digest = "sha256:" + hashlib.sha256(b"oncall.unreadable\0" + text.encode(errors="replace")).hexdigest()
        self.of_digest(digest, refusal, what)

    def of_digest(self, digest: str, refusal: Terminal, what: str, reference: str = "") -> None:
        """Records what was asked for (and of which reference), the code and the message, under `digest`."""
        key = (digest[:100], refusal.code, reference[:200])
        # Held over the append: a refusal counts as recorded only once it is.
        with self._lock:
            if key in self._recorded or len(self._recorded) >= MAX_REFUSALS:
                return
            body = {"what": f"{what} {key[2]}".rstrip(), "code": str(refusal.code), "message": refusal.message[:500]}
            if len(self._recorded) == MAX_REFUSALS - 1:
                body["last"] = f"{MAX_REFUSALS} refusals recorded; this process records no more of them"
            self._ledger.append(EntryKind.REFUSAL, key[0], body)
            self._recorded.add(key)


def _check_policy(request: AccessRequest, policy: Policy) -> None:
    if request.intent is None:
        what, verdict = "read access", policy.read
    else:
        what, verdict = request.intent.parameters.type, policy.rule(request.intent.parameters.type).verdict
    if verdict is not Verdict.APPROVE:
        # `auto` needs a signed delegation and `two_person` two people: neither exists yet, so neither opens anything.
        raise Terminal(ErrorCode.POLICY_FORBIDS, f"{what}: the verdict {verdict} opens nothing here; only approve does")
    lifetime = request.grant_expires_at - request.not_before
    longest = longest_grant(request.kind, policy)
    if lifetime > longest:
        raise Terminal(
            ErrorCode.POLICY_FORBIDS,
            f"the grant would last {lifetime.total_seconds():.0f} s, and at most {longest.total_seconds():.0f} s are"
            " allowed",
        )


def _check_times(request: AccessRequest, now: datetime) -> None:
    if not request.not_before <= request.answer_by <= request.grant_expires_at:
        raise Terminal(ErrorCode.REQUEST_MISMATCH, "the request's times are not in order")
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
