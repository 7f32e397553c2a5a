"""One team's time on call: what it watches, what it has noticed, and what it is asked and told."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from oncall.model.access import GateStatus
from oncall.model.alert import Severity
from oncall.model.frozen import Frozen
from oncall.model.symptom import Symptom


class ShiftPhase(StrEnum):
    """Where a shift is. While it is renewing it goes on watching under the grant that it has."""

    AWAITING_READ_APPROVAL = "awaiting_read_approval"
    WATCHING = "watching"
    RENEWING = "renewing"
    OFF = "off"


class ShiftOpening(Frozen):
    """What a person who goes on call asks for. Durations are seconds.

    `signature` is their SSH signature over the opening without it (namespace `oncall-shift`); without one the requester
    counts as nobody. `max_incidents` is how many incidents the shift lets run at once, the `incident_` times are given
    to them. `clear_s` is how long a problem must have been out of sight before the same one counts as a new one.
    """

    shift_id: str
    tenant: str
    team: str
    opened_at: datetime
    interval_s: float = Field(ge=0.5, le=24 * 3600)
    answer_by_s: int = Field(ge=1, le=12 * 3600)
    grant_s: int = Field(ge=300, le=12 * 3600)
    renew_before_s: int = Field(ge=60)
    max_incidents: int = Field(ge=1, le=50)
    incident_answer_by_s: int = Field(ge=1, le=7 * 24 * 3600)
    incident_grant_s: int = Field(ge=60, le=12 * 3600)
    clear_s: float = Field(ge=0)
    signature: str | None = None


class StopOrder(Frozen):
    """A person's order to end a shift: whoever could send it unsigned could blind the team.

    `run_id` is the first run of the shift's chain, which a continue-as-new does not change. The signature (armored
    SSHSIG, namespace `oncall-stop`) is over the canonical JSON of the other fields.
    """

    schema_id: Literal["oncall.stop/1"] = "oncall.stop/1"
    shift_id: str
    run_id: str
    reason: str
    ordered_at: datetime
    signature: str = ""


class Trouble(StrEnum):
    """What a figure that left its usual range is about."""

    ERRORS = "elevated_errors"
    LATENCY = "elevated_latency"
    SATURATION = "saturation"


class Sighting(Frozen):
    """One figure of one service that left what the thresholds allow, and since when.

    `symptom.before` is its level now, `symptom.threshold` what it has to come back within. `error_percent` is the share
    of requests that fail, None where the figure is not about failures.
    """

    trouble: Trouble
    symptom: Symptom
    since: datetime
    error_percent: float | None = None


class AlertGroup(Frozen):
    """Sightings of one moment in one region that the call graph connects, as one alert.

    `service` is where it begins: the deepest one of them. `services` are all of them; `around` those that call one of
    them or are called by one.
    """

    region: str
    service: str
    services: tuple[str, ...]
    around: tuple[str, ...]
    trouble: Trouble
    severity: Severity
    since: datetime
    sightings: tuple[Sighting, ...]


class Problem(Frozen):
    """What a shift has noticed, from the first sighting until it has been out of sight for long enough.

    `incident_id` is None while it waits for a place; `run_id` is None when it joined an incident that ran already.
    `ending` is how its incident ended, None while it runs. `services` are those that it has reached so far.
    """

    group: AlertGroup
    services: tuple[str, ...]
    noticed_at: datetime
    seen_at: datetime
    incident_id: str | None = None
    run_id: str | None = None
    opened_at: datetime | None = None
    ending: str | None = None
    closed_at: datetime | None = None

    @property
    def running(self) -> bool:
        """Whether an incident works on it now."""
        return self.incident_id is not None and self.ending is None


class IncidentState(StrEnum):
    """What Temporal says of an incident's run. `cut_off`: it ended from outside, without a report."""

    RUNNING = "running"
    CLOSED = "closed"
    CUT_OFF = "cut_off"


class FollowedIncident(Frozen):
    """One incident as it stood when the shift looked. `status` is its phase, or its ending once it has closed.

    `waiting_for` are the ids of the requests that nobody has answered yet; `answered` is false when a running one did
    not say.
    """

    incident_id: str
    run_id: str
    state: IncidentState
    status: str
    answered: bool = True
    waiting_for: tuple[str, ...] = ()
    summary: str = ""
    closed_at: datetime | None = None


class Look(Frozen):
    """The last look of a shift: how many services it saw, which it could not see, and what stood out."""

    as_of: datetime
    services: int
    groups: int
    blind: tuple[str, ...] = ()


class GrantStatus(Frozen):
    """A grant as people look at it."""

    grant_id: str
    request_digest: str
    decision: GateStatus
    approvers: tuple[str, ...]
    expires_at: datetime


class ShiftStatus(Frozen):
    """One look at a shift; its last one is the workflow's result.

    `open` are the incidents that run, `queued` the problems that wait for a place, `closed` the newest that ended.
    `ended` says why it is off.
    """

    shift_id: str
    team: str
    run_id: str
    phase: ShiftPhase
    requester: str | None
    started_at: datetime
    interval_s: float
    grant: GrantStatus | None
    waiting_for: tuple[str, ...]
    last_look: Look | None
    looks: int
    blind_since: datetime | None
    opened: int
    open: tuple[FollowedIncident, ...]
    queued: tuple[AlertGroup, ...]
    closed: tuple[Problem, ...]
    runs: int
    notes: tuple[str, ...]
    refused_orders: int = 0
    last_refusal: str = ""
    ended: str | None = None
