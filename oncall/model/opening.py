"""How an incident is opened."""

from datetime import datetime

from pydantic import Field

from oncall.model.access import SharedGrant
from oncall.model.alert import Alert, Severity
from oncall.model.frozen import Frozen
from oncall.model.symptom import Symptom


class Opening(Frozen):
    """The input of an incident workflow: what was reported, by whom, and how long people have to answer.

    `signature` is the requester's SSH signature over the opening without it (namespace `oncall-trigger`);
    without one the requester counts as nobody. `recording` names a recorded incident: no access is asked and
    nothing can be changed. `grant` is the READ grant of the shift that is on, if one is: nobody is asked again.
    `symptoms` are the alert's own measurements, where it has some: when they recover before any remedy ran, the
    incident is over.
    """

    incident_id: str
    tenant: str
    anomaly_type: str
    severity: Severity
    message: str
    region: str | None = None
    service: str | None = None
    alert: Alert
    opened_at: datetime
    recording: str | None = None
    answer_by_s: int = Field(default=1800, ge=1, le=7 * 24 * 3600)
    grant_s: int = Field(default=3600, ge=60, le=12 * 3600)
    grant: SharedGrant | None = None
    symptoms: tuple[Symptom, ...] = ()
    signature: str | None = None
