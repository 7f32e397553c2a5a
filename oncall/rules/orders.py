"""Signed orders besides decisions: who opened an incident, and who may stop one."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from oncall.model.access import NAMESPACE_ABORT, NAMESPACE_TRIGGER, AbortOrder, Approvers
from oncall.model.errors import OncallError
from oncall.model.opening import Opening
from oncall.trust import requests, ssh

FRESH = timedelta(minutes=5)
"""How old an order may be when it arrives, or how far its signer's clock may be off."""


@dataclass(frozen=True)
class AbortVerdict:
    """Whether an order to stop is honoured, and the line that the record keeps."""

    honoured: bool
    note: str


def requester(opening: Opening, workflow_id: str, started_at: datetime, approvers: Approvers) -> str | None:
    """The person whose signature opened this incident, at `started_at`; None when nobody's does.

    An opening that was signed for another incident, or at another time, is somebody else's copy.
    """
    if opening.signature is None or opening.incident_id != workflow_id or not _recent(opening.opened_at, started_at):
        return None
    try:
        signer = ssh.verify(
            opening.signature, requests.opening_bytes(opening), NAMESPACE_TRIGGER, approvers, opening.opened_at
        )
    except OncallError:
        return None
    return signer.person


def abort(order: AbortOrder, incident_id: str, run_id: str, now: datetime, approvers: Approvers) -> AbortVerdict:
    """Whether `order` stops this run of this incident."""
    if (order.incident_id, order.run_id) != (incident_id, run_id):
        return AbortVerdict(False, "it names another incident")
    if not _recent(order.ordered_at, now):
        return AbortVerdict(False, f"it was signed at {order.ordered_at.isoformat()}, not now")
    try:
        signer = ssh.verify(order.signature, requests.abort_bytes(order), NAMESPACE_ABORT, approvers, order.ordered_at)
    except OncallError as error:
        return AbortVerdict(False, error.message[:200])
    return AbortVerdict(True, f"aborted by {signer.person}: {order.reason[:200]}")


def _recent(moment: datetime, now: datetime) -> bool:
    # A time without a zone cannot be compared, and no signer of ours writes one.
    return moment.utcoffset() is not None and abs(now - moment) <= FRESH
