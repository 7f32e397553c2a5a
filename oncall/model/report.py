"""The incident report: the JSON of `report --format json`, field for field as docs and programs know it."""

from datetime import datetime
from typing import Any

from oncall.model.access import AccessKind, DecisionRecord, GateStatus
from oncall.model.action import Outcome, Risk, Target
from oncall.model.alert import Alert
from oncall.model.coverage import Coverage, Wave
from oncall.model.diagnosis import Diagnosis
from oncall.model.frozen import Frozen
from oncall.model.incident import PhaseSpan
from oncall.model.observation import Observation
from oncall.model.policy import Verdict
from oncall.model.verification import Verification


class AccessEntry(Frozen):
    """One question to a human and its answer.

    `received` holds the first decisions that arrived, duplicates and late ones included; `last_refusal` says why the
    newest refused one did not count.
    """

    request_id: str
    grant_id: str | None
    kind: AccessKind
    references: tuple[str, ...]
    purpose: str
    request_digest: str
    decision: GateStatus
    approvers: tuple[str, ...]
    reason: str
    requested_at: datetime
    answer_by: datetime
    decided_at: datetime | None
    grant_expires_at: datetime
    received: tuple[DecisionRecord, ...] = ()
    refused_decisions: int = 0
    last_refusal: str = ""


class ActionEntry(Frozen):
    """One action and what became of it; `manual_steps` is filled unless it succeeded."""

    action_id: str
    action_digest: str
    type: str
    target: Target
    parameters: dict[str, Any]
    risk: Risk
    verdict: Verdict
    request_id: str | None
    outcome: Outcome
    before: dict[str, Any]
    after: dict[str, Any]
    verified: bool
    rolled_back: bool
    detail: str
    reason: str
    manual_steps: tuple[str, ...]


class Usage(Frozen):
    """What the incident cost. Money is US dollars."""

    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    secret_requests: int = 0


class Timings(Frozen):
    """Seconds, from workflow time; None where the moment never came.

    `approval_to_effect_s` runs from the yes to the end of the first action that may have changed something, its
    read-back included.
    """

    trigger_to_first_finding_s: float | None = None
    investigation_s: float | None = None
    trigger_to_diagnosis_s: float | None = None
    approval_to_effect_s: float | None = None
    total_s: float | None = None


class Files(Frozen):
    """Paths on the host that wrote them; audit and history are written after the workflow has closed."""

    report: str | None = None
    audit: str | None = None
    history: str | None = None


class AbortOrders(Frozen):
    """What became of the orders to stop: the line about the honoured one (empty when none was), how many were refused
    and why the newest of those was."""

    honoured: str = ""
    refused: int = 0
    last_refusal: str = ""


class IncidentReport(Frozen):
    """Everything about one incident, assembled by the workflow from what it recorded."""

    incident_id: str
    workflow_id: str
    run_id: str
    status: str
    severity: str
    anomaly_type: str
    requester: str | None
    opened_at: datetime
    closed_at: datetime | None
    alert: Alert
    phases: tuple[PhaseSpan, ...]
    coverage: Coverage
    diagnosis: Diagnosis | None
    observations: dict[str, Observation]
    access: tuple[AccessEntry, ...]
    actions: tuple[ActionEntry, ...]
    verification: Verification | None
    usage: Usage
    timings: Timings
    files: Files = Files()
    abort_orders: AbortOrders = AbortOrders()
    notes: tuple[str, ...] = ()
    wave: Wave = Wave()
