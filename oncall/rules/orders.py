"""Signed orders besides decisions: who opened an incident, and who may stop one."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from oncall.model.access import (
    NAMESPACE_ABORT,
    NAMESPACE_SHIFT,
    NAMESPACE_STOP,
    NAMESPACE_TRIGGER,
    AbortOrder,
    Approvers,
)
from oncall.model.errors import OncallError
from oncall.model.opening import Opening
from oncall.model.shift import ShiftOpening, StopOrder
from oncall.trust import requests, ssh

FRESH = timedelta(minutes=5)
"""How old an order may be when it arrives, or how far its signer's clock may be off."""


@dataclass(frozen=True)
class Verdict:
    """Whether an order is honoured, and the line that the record keeps."""

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


def abort(order: AbortOrder, incident_id: str, run_id: str, now: datetime, approvers: Approvers) -> Verdict:
    """Whether `order` stops this run of this incident."""
    if (order.incident_id, order.run_id) != (incident_id, run_id):
        return Verdict(False, "it names another incident")
    if not _recent(order.ordered_at, now):
        return Verdict(False, f"it was signed at {order.ordered_at.isoformat()}, not now")
    try:
        signer = ssh.verify(order.signature, requests.abort_bytes(order), NAMESPACE_ABORT, approvers, order.ordered_at)
    except OncallError as error:
        return Verdict(False, error.message[:200])
    return Verdict(True, f"aborted by {signer.person}: {order.reason[:200]}")


def shift_requester(opening: ShiftOpening, workflow_id: str, started_at: datetime, approvers: Approvers) -> str | None:
    """The person whose signature put this team on call, at `started_at`; None when nobody's did.

    An opening that was signed for another shift, or at another time, is somebody else's copy.
    """
    if opening.signature is None or opening.shift_id != workflow_id or not _recent(opening.opened_at, started_at):
        return None
    try:
        signer = ssh.verify(
            opening.signature, requests.shift_bytes(opening), NAMESPACE_SHIFT, approvers, opening.opened_at
        )
    except OncallError:
        return None
    return signer.person


def stop(order: StopOrder, shift_id: str, run_id: str, now: datetime, approvers: Approvers) -> Verdict:
    """Whether `order` ends this shift."""
    if (order.shift_id, order.run_id) != (shift_id, run_id):
        return Verdict(False, "it names another shift")
    if not _recent(order.ordered_at, now):
        return Verdict(False, f"it was signed at {order.ordered_at.isoformat()}, not now")
    try:
        signer = ssh.verify(order.signature, requests.stop_bytes(order), NAMESPACE_STOP, approvers, order.ordered_at)
    except OncallError as error:
        return Verdict(False, error.message[:200])
    return Verdict(True, f"ended by {signer.person}: {order.reason[:200]}")


def _recent(moment: datetime, now: datetime) -> bool:
    # A time without a zone cannot be compared, and no signer of ours writes one.
    return moment.utcoffset() is not None and abs(now - moment) <= FRESH
