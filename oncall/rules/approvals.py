"""The gate: a request and the decisions that reach it, as a pure state machine.

A gate leaves `pending` once and never again. Only a decision whose signature verifies, over this very digest, inside
the deadline, moves it; everything else is recorded and changes nothing.
"""

from datetime import datetime, timedelta

from oncall.model.access import (
    NAMESPACE_DECISION,
    AccessKind,
    AccessRequest,
    Approvers,
    Decision,
    DecisionOutcome,
    DecisionRecord,
    GateStatus,
    SharedGrant,
)
from oncall.model.errors import OncallError
from oncall.model.incident import Gate
from oncall.model.policy import Verdict
from oncall.trust import requests, ssh

CLOCK_SKEW = timedelta(seconds=60)
"""How far an approver's clock may run behind the cluster's."""

INCIDENT_OVER = "the incident closed before anybody answered"
SHIFT_OVER = "the shift ended before anybody answered"

RECORDED_DECISIONS = 20
"""Decisions kept with a gate; later ones are only counted, so that a flood cannot grow the report."""


def open_gate(request: AccessRequest, verdict: Verdict, now: datetime) -> Gate:
    """A pending gate for `request`; one that the policy answers by itself starts out decided."""
    digest = requests.request_digest(request)
    gate = Gate(
        request_id=requests.request_id(digest),
        request_digest=digest,
        request=request,
        verdict=verdict,
        requested_at=now,
    )
    if verdict is Verdict.APPROVE:
        return gate
    return gate.model_copy(
        update={
            "status": GateStatus.DENIED,
            "reason": f"the policy's verdict is {verdict}; only approve can be answered here",
            "decided_at": now,
        }
    )


def not_required(request: AccessRequest, now: datetime) -> Gate:
    """The gate of an incident over a recording: nothing live is read, so nobody is asked."""
    gate = open_gate(request, Verdict.APPROVE, now)
    return gate.model_copy(update={"status": GateStatus.NOT_REQUIRED, "reason": "over a recording", "decided_at": now})


def shared(grant: SharedGrant, tenant: str, approvers: Approvers, now: datetime) -> Gate | None:
    """The answered gate of a shift's READ grant, or None where its bytes and signatures do not make it one for `tenant`
    that is open at `now`. The broker asks its own ledger whether it still is."""
    try:
        request = requests.parse_request(grant.request)
    except OncallError:
        return None
    # An incident's own request has its severity, and is for nobody else.
    a_shifts = request.kind is AccessKind.READ and request.severity is None
    if not a_shifts or request.tenant != tenant or now >= request.grant_expires_at:
        return None
    gate = open_gate(request, Verdict.APPROVE, request.not_before)
    for decision in grant.decisions[:1]:
        gate, _ = receive(gate, decision, approvers, decision.decided_at)
    return gate if gate.status is GateStatus.APPROVED else None


def receive(gate: Gate, decision: Decision, approvers: Approvers, now: datetime) -> tuple[Gate, DecisionOutcome]:
    """What a decision does to a gate, and what to tell its sender."""
    if decision.request_digest != gate.request_digest:
        return gate, DecisionOutcome.UNKNOWN_REQUEST
    try:
        signer = ssh.verify(
            decision.signature, requests.decision_bytes(decision), NAMESPACE_DECISION, approvers, decision.decided_at
        )
    except OncallError as error:
        return _record(gate, DecisionOutcome.REFUSED, None, now, error.message), DecisionOutcome.REFUSED
    if gate.status is not GateStatus.PENDING:
        outcome = DecisionOutcome.LATE if gate.status is GateStatus.EXPIRED else DecisionOutcome.DUPLICATE
        return _record(gate, outcome, signer.person, now), outcome
    if now > gate.request.answer_by:
        return _record(expire(gate, now), DecisionOutcome.LATE, signer.person, now), DecisionOutcome.LATE
    if not gate.request.not_before <= decision.decided_at <= min(gate.request.answer_by, now + CLOCK_SKEW):
        why = (
            f"decided_at {decision.decided_at.isoformat()} is outside the request's window; check the approver's clock"
        )
        return _record(gate, DecisionOutcome.REFUSED, signer.person, now, why), DecisionOutcome.REFUSED
    outcome = DecisionOutcome.APPROVED if decision.approved else DecisionOutcome.DENIED
    status = GateStatus.APPROVED if decision.approved else GateStatus.DENIED
    decided = gate.model_copy(
        update={
            "status": status,
            "approvers": (signer.person,),
            "reason": decision.reason,
            "decided_at": now,
            "grant_id": requests.grant_id(gate.request_digest) if decision.approved else None,
            "decisions": (decision,),
        }
    )
    return _record(decided, outcome, signer.person, now), outcome


def expire(gate: Gate, now: datetime) -> Gate:
    """The gate after its deadline: expired if it was still pending."""
    if gate.status is not GateStatus.PENDING:
        return gate
    reason = f"nobody answered by {gate.request.answer_by.isoformat()}"
    return gate.model_copy(update={"status": GateStatus.EXPIRED, "decided_at": now, "reason": reason})


def withdraw(gate: Gate, now: datetime, why: str = INCIDENT_OVER) -> Gate:
    """A pending gate that needs no answer any more: expired, for another reason than its deadline."""
    if gate.status is not GateStatus.PENDING:
        return gate
    return gate.model_copy(update={"status": GateStatus.EXPIRED, "decided_at": now, "reason": why})


def _record(gate: Gate, outcome: DecisionOutcome, person: str | None, now: datetime, detail: str = "") -> Gate:
    if outcome is DecisionOutcome.REFUSED:
        gate = gate.model_copy(update={"refused": gate.refused + 1, "last_refusal": detail[:300]})
    if len(gate.history) >= RECORDED_DECISIONS:
        return gate
    record = DecisionRecord(outcome=outcome, person=person, received_at=now, detail=detail[:300])
    return gate.model_copy(update={"history": (*gate.history, record)})
