"""How far an incident has come: what `watch` shows, and programs read from it."""

from datetime import datetime

from oncall.model.access import AccessKind, GateStatus
from oncall.model.action import Outcome, Target
from oncall.model.coverage import Wave
from oncall.model.frozen import Frozen
from oncall.model.incident import IncidentStatus, PhaseSpan


class WaitingRequest(Frozen):
    """A request that a human has not answered. `what` is the kind of access and, for WRITE, the exact action.

    To look at only: whoever answers is shown the bytes that they sign.
    """

    request_id: str
    kind: AccessKind
    what: str
    since: datetime
    answer_by: datetime


class ActionProgress(Frozen):
    """One proposed action. `outcome` is None until it is known, `decision` where its request stands."""

    action_id: str
    type: str
    target: Target
    request_id: str | None
    decision: GateStatus
    outcome: Outcome | None
    detail: str


class IncidentProgress(IncidentStatus):
    """A status with everything that moves. `recovered` is None until it was measured."""

    closed_at: datetime | None
    phases: tuple[PhaseSpan, ...]
    wave: Wave
    waiting: tuple[WaitingRequest, ...]
    actions: tuple[ActionProgress, ...]
    recovered: bool | None
    notes: tuple[str, ...]
