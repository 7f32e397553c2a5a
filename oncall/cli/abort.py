"""`abort`: a person's signed order to stop one incident at its next safe point."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from oncall.cli import loop, settings, sshkeys
from oncall.cli.exits import ANSWER_IS_NO, DONE
from oncall.cli.output import Output, json_option
from oncall.model.access import NAMESPACE_ABORT, AbortOrder
from oncall.model.errors import Retryable, Terminal
from oncall.model.incident import Ending
from oncall.model.report import IncidentReport
from oncall.rules.text import plain
from oncall.temporal import incidents
from oncall.temporal.client import connect
from oncall.trust.requests import abort_bytes

CONFIRM_S = 10.0
_POLL_S = 0.2


@click.command()
@click.argument("incident")
@click.option("--reason", default="", help="Why; signed and kept in the report.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The SSH key to sign with.")
@json_option
def abort(incident: str, reason: str, key: Path | None, as_json: bool) -> int:
    """Stops an incident at its next safe point, never within an action. Exit code 1 when it was refused, came too
    late, or was not answered in time.

    \b
    Example:
      oncall abort incident-3fa85f6457171234 --reason "planned maintenance"
    """
    out = Output(as_json)
    chosen = settings.signing_key(key, settings.adopt(out.note), out.note)
    report, became = loop.run(_abort(incident, reason, chosen))
    document = {"incident_id": report.incident_id, "run_id": report.run_id}
    out.emit({**document, "outcome": became.outcome, "detail": became.detail})
    out.show(plain(f"{report.incident_id}: {became.outcome}" + (f": {became.detail}" if became.detail else "")))
    return DONE if became.outcome in (Ending.ABORTED, "stopping") else ANSWER_IS_NO


@dataclass(frozen=True)
class Became:
    """What became of an order: `aborted`, `stopping` (at the next safe point), `refused`, `closed` (the incident ended
    before it could be stopped) or `sent` (the incident has not said yet)."""

    outcome: str
    detail: str


async def _abort(incident: str, reason: str, key: Path) -> tuple[IncidentReport, Became]:
    """Signs, sends, and waits up to CONFIRM_S for what the incident says to it."""
    client = await connect()
    before = await incidents.report(client, incident)
    if before.closed_at is not None:
        return before, Became("closed", f"the incident had closed before: {before.status}; nothing was sent")
    order = AbortOrder(incident_id=incident, run_id=before.run_id, reason=reason, ordered_at=datetime.now(UTC))
    # In a thread: a passphrase prompt or a touch of a hardware key may take its time.
    signature = await asyncio.to_thread(sshkeys.sign, key, abort_bytes(order), NAMESPACE_ABORT)
    # It may close meanwhile: what it says below tells.
    with contextlib.suppress(Terminal):
        await incidents.abort(client, order.model_copy(update={"signature": signature}))
    deadline = asyncio.get_running_loop().time() + CONFIRM_S
    report = before
    while asyncio.get_running_loop().time() < deadline:
        # A worker that is too busy for this look may answer the next.
        with contextlib.suppress(Retryable):
            report = await incidents.report(client, incident)
        if became := said(before, report):
            return report, became
        await asyncio.sleep(_POLL_S)
    advice = f"the incident has not said within {CONFIRM_S:.0f} s; see `oncall status {before.incident_id}`"
    return report, Became("sent", advice)


def said(before: IncidentReport, now: IncidentReport) -> Became | None:
    """What the incident has said to an order between two looks; None when nothing yet."""
    honoured = now.abort_orders.honoured
    if now.status == Ending.ABORTED:
        return Became(Ending.ABORTED, honoured)
    if now.closed_at is not None:
        return Became("closed", f"the incident closed before it could be stopped: {now.status}")
    if honoured:
        return Became("stopping", honoured)
    if now.abort_orders.refused > before.abort_orders.refused:
        return Became("refused", now.abort_orders.last_refusal)
    return None
