"""`abort`: a person's signed order to stop one incident at its next safe point."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click

from oncall.cli import loop, settings, sshkeys
from oncall.cli.exits import ANSWER_IS_NO, DONE
from oncall.cli.output import Output, json_option
from oncall.cli.text import plain
from oncall.model.access import NAMESPACE_ABORT, AbortOrder
from oncall.model.incident import Ending, Phase
from oncall.model.report import IncidentReport
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
    """Stops an incident at its next safe point, never within an action. Exit code 1 when the order was refused.

    \b
    Example:
      oncall abort incident-3fa85f6457171234 --reason "planned maintenance"
    """
    out = Output(as_json)
    chosen = settings.signing_key(key, settings.adopt(out.note), out.note)
    report = loop.run(_abort(incident, reason, chosen))
    outcome = _outcome(report)
    detail = report.notes[-1] if report.notes else ""
    out.emit({"incident_id": report.incident_id, "run_id": report.run_id, "outcome": outcome, "detail": detail})
    out.show(plain(f"{report.incident_id}: {outcome}" + (f": {detail}" if detail else "")))
    return ANSWER_IS_NO if outcome == "refused" else DONE


async def _abort(incident: str, reason: str, key: Path) -> IncidentReport:
    """Signs, sends, and waits up to CONFIRM_S for what the incident says to it."""
    client = await connect()
    before = await incidents.report(client, incident)
    order = AbortOrder(incident_id=incident, run_id=before.run_id, reason=reason, ordered_at=datetime.now(UTC))
    # In a thread: a passphrase prompt or a touch of a hardware key may take its time.
    signature = await asyncio.to_thread(sshkeys.sign, key, abort_bytes(order), NAMESPACE_ABORT)
    await incidents.abort(client, order.model_copy(update={"signature": signature}))
    deadline = asyncio.get_running_loop().time() + CONFIRM_S
    report = before
    while len(report.notes) == len(before.notes) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_S)
        report = await incidents.report(client, incident)
    return report


def _outcome(report: IncidentReport) -> str:
    if report.status == Ending.ABORTED:
        return "aborted"
    if report.notes and report.notes[-1].startswith("aborted by"):
        return "stopping" if report.phases[-1].phase is not Phase.CLOSED else report.status
    return "refused"
