"""Signs a decision about one request, sends it, and waits for what the gate says became of it."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from temporalio.client import Client

from oncall.cli import sshkeys
from oncall.cli.request_view import read_pending
from oncall.model.access import NAMESPACE_DECISION, Decision, GateStatus
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.incident import PendingApproval
from oncall.model.report import AccessEntry
from oncall.temporal import gates
from oncall.trust.requests import decision_bytes

CONFIRM_S = 5.0
_POLL_S = 0.15


@dataclass(frozen=True)
class Decided:
    """What became of a decision: `outcome` is approved, denied, refused, or whatever else the gate became; or sent (the
    gate has not said yet)."""

    outcome: str
    approvers: tuple[str, ...]
    detail: str


def make_decision(pending: PendingApproval, approved: bool, reason: str, key: Path) -> Decision:
    """A signed decision about `pending`. Raises Terminal when the request is not what it says, or too old to answer,
    or the key cannot sign."""
    request = read_pending(pending)
    now = datetime.now(UTC)
    if now >= request.answer_by:
        message = f"request {pending.request_id} expired at {request.answer_by:%H:%M:%S} UTC; not signing it"
        raise Terminal(ErrorCode.REQUEST_EXPIRED, message)
    unsigned = Decision(request_digest=pending.request_digest, approved=approved, reason=reason, decided_at=now)
    signature = sshkeys.sign(key, decision_bytes(unsigned), NAMESPACE_DECISION)
    return unsigned.model_copy(update={"signature": signature})


async def send(client: Client, pending: PendingApproval, decision: Decision) -> Decided:
    """Sends it and waits up to CONFIRM_S for the gate.

    Raises Terminal(ALREADY_USED) when the request was decided before.
    """
    before = await _entry(client, pending)
    if before is not None and before.decision is not GateStatus.PENDING:
        message = f"request {pending.request_id} is {before.decision} already; nothing was sent"
        raise Terminal(ErrorCode.ALREADY_USED, message)
    await gates.decide(client, pending.incident_id, decision)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONFIRM_S
    while loop.time() < deadline:
        await asyncio.sleep(_POLL_S)
        now = None
        # It was sent, whatever happens to this look: a worker that is away now will hear it when it is back.
        with contextlib.suppress(Retryable):
            now = await _entry(client, pending)
        if now is None:
            continue
        if now.decision is not GateStatus.PENDING:
            return Decided(now.decision.value, now.approvers, "")
        if now.refused_decisions > (before.refused_decisions if before else 0):
            return Decided("refused", now.approvers, now.last_refusal)
    return Decided("sent", (), f"no answer within {CONFIRM_S:.0f} s; see `oncall approvals {pending.incident_id}`")


async def _entry(client: Client, pending: PendingApproval) -> AccessEntry | None:
    entries = await gates.access(client, pending.incident_id)
    return next((entry for entry in entries if entry.request_digest == pending.request_digest), None)
