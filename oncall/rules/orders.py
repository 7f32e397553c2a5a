"""Signed orders besides decisions: who opened an incident, and who may stop one."""

from dataclasses import dataclass

from oncall.model.access import NAMESPACE_ABORT, NAMESPACE_TRIGGER, AbortOrder, Approvers
from oncall.model.alert import Opening
from oncall.model.errors import OncallError
from oncall.trust import requests, ssh


@dataclass(frozen=True)
class AbortVerdict:
    """Whether an order to stop is honoured, and the line that the record keeps."""

    honoured: bool
    note: str


def requester(opening: Opening, approvers: Approvers) -> str | None:
    """The person whose signature opened the incident, or None when nobody's verifies."""
    if opening.signature is None:
        return None
    try:
        signer = ssh.verify(
            opening.signature, requests.opening_bytes(opening), NAMESPACE_TRIGGER, approvers, opening.opened_at
        )
    except OncallError:
        return None
    return signer.person


def abort(order: AbortOrder, incident_id: str, run_id: str, approvers: Approvers) -> AbortVerdict:
    """Whether `order` stops this run of this incident."""
    if (order.incident_id, order.run_id) != (incident_id, run_id):
        return AbortVerdict(False, "an order to abort another incident was ignored")
    try:
        signer = ssh.verify(order.signature, requests.abort_bytes(order), NAMESPACE_ABORT, approvers, order.ordered_at)
    except OncallError as error:
        return AbortVerdict(False, f"an order to abort was refused: {error.message[:200]}")
    return AbortVerdict(True, f"aborted by {signer.person}: {order.reason[:200]}")
