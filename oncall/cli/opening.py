"""Makes the opening of an incident from what a person reports, signed by them where they have a key."""

from datetime import UTC, datetime
from pathlib import Path

from oncall.cli import sshkeys
from oncall.config import Config
from oncall.model.access import NAMESPACE_TRIGGER, SharedGrant
from oncall.model.alert import Alert, Severity, fingerprint
from oncall.model.names import incident_workflow_id
from oncall.model.opening import Opening
from oncall.trust.requests import opening_bytes


def make_opening(
    config: Config,
    anomaly: str,
    severity: Severity,
    message: str,
    region: str | None,
    service: str | None,
    key: Path | None,
    extra_labels: dict[str, str] | None = None,
    grant: SharedGrant | None = None,
) -> Opening:
    """An opening that is signed with `key`, or by nobody. Equal labels make it join the incident that runs already.
    `grant` is the READ grant of the shift that is on, if one is.

    Raises Terminal(BAD_CONFIG) when the key cannot sign.
    """
    now = datetime.now(UTC)
    places = {"region": region, "service": service}
    labels = {
        "alertname": anomaly,
        "severity": severity.value,
        **{name: value for name, value in places.items() if value},
        **(extra_labels or {}),
    }
    print_ = fingerprint(labels)
    opening = Opening(
        incident_id=incident_workflow_id(print_),
        tenant=config.tenant,
        anomaly_type=anomaly,
        severity=severity,
        message=message,
        region=region,
        service=service,
        alert=Alert(labels=labels, annotations={"summary": message}, starts_at=now, fingerprint=print_),
        opened_at=now,
        answer_by_s=config.incident.answer_by_s,
        grant_s=config.incident.grant_s,
        grant=grant,
    )
    if key is None:
        return opening
    return opening.model_copy(update={"signature": sshkeys.sign(key, opening_bytes(opening), NAMESPACE_TRIGGER)})
