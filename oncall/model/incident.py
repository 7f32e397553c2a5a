"""An incident's life: phases, endings, and the status that the queries answer with."""

from datetime import datetime
from enum import StrEnum

from oncall.model.access import AccessRequest, Decision, DecisionRecord, GateStatus
from oncall.model.action import Action
from oncall.model.coverage import Coverage
from oncall.model.frozen import Frozen
from oncall.model.policy import Verdict


class Phase(StrEnum):
    """Where an incident is."""

    RECEIVED = "received"
    AWAITING_READ_APPROVAL = "awaiting_read_approval"
    INVESTIGATING = "investigating"
    SYNTHESIZING = "synthesizing"
    AWAITING_WRITE_APPROVAL = "awaiting_write_approval"
    REMEDIATING = "remediating"
    VERIFYING = "verifying"
    CLOSED = "closed"


class Ending(StrEnum):
    """How an incident closed. `resolved` is never said without a measurement of recovery."""

    RESOLVED = "resolved"
    MITIGATED = "mitigated"
    UNRESOLVED = "unresolved"
    NO_FAULT = "no_fault"
    SELF_RECOVERED = "self_recovered"
    ABORTED = "aborted"


class PhaseSpan(Frozen):
    """One phase with its start and, once over, its end."""

    phase: Phase
    started_at: datetime
    ended_at: datetime | None = None


class Gate(Frozen):
    """A request and where it stands.

    `history` holds the first decisions that arrived, refused ones included; `refused` counts all that were refused.
    """

    request_id: str
    request_digest: str
    request: AccessRequest
    verdict: Verdict
    requested_at: datetime
    status: GateStatus = GateStatus.PENDING
    approvers: tuple[str, ...] = ()
    reason: str = ""
    decided_at: datetime | None = None
    grant_id: str | None = None
    history: tuple[DecisionRecord, ...] = ()
    refused: int = 0
    last_refusal: str = ""
    decisions: tuple[Decision, ...] = ()


class PendingApproval(Frozen):
    """What waits for a human: the very bytes to be signed over, and what they mean.

    `request` is the canonical JSON whose digest is `request_digest`; whatever else is shown is derived from it.
    """

    incident_id: str
    request_id: str
    request_digest: str
    request: str
    action: Action | None


class IncidentStatus(Frozen):
    """One look at an incident."""

    incident_id: str
    workflow_id: str
    run_id: str
    phase: Phase
    status: str
    severity: str
    anomaly_type: str
    opened_at: datetime
    coverage: Coverage
    waiting_for: tuple[str, ...]
    summary: str
