"""What came in."""

import hashlib
from datetime import datetime
from enum import StrEnum

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
