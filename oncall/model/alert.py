"""What came in, and how an incident is opened from it."""

import hashlib
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from oncall.model.frozen import Frozen


class Severity(StrEnum):
    """How much of the estate is examined, and how urgently."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Alert(Frozen):
    """One alert with Alertmanager v4 fields (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config).

    Labels and annotations are untrusted text.
    """

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    fingerprint: str


def fingerprint(labels: dict[str, str]) -> str:
    """A 16-digit hex hash of a label set: equal labels, equal incident."""
    text = "\x00".join(f"{key}\x01{labels[key]}" for key in sorted(labels))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Opening(Frozen):
    """The input of an incident workflow: what was reported, by whom, and how long people have to answer.

    `signature` is the requester's SSH signature over the opening without it (namespace `oncall-trigger`);
    without one the requester counts as nobody. `recording` names a recorded incident: no access is asked and
    nothing can be changed.
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
    answer_by_s: int = Field(default=1800, ge=1, le=12 * 3600)
    grant_s: int = Field(default=3600, ge=60, le=12 * 3600)
    signature: str | None = None
