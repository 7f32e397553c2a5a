"""`trigger`, `status`, `report` and `replay`: an incident from its opening to its re-execution."""

import os
from pathlib import Path

import click
from temporalio.client import Client

from oncall.cli import loop, settings
from oncall.cli.exits import ANSWER_IS_NO, DONE, UNREACHABLE
from oncall.cli.markdown import to_markdown
from oncall.cli.opening import make_opening
from oncall.cli.output import Output, json_option, note_silent
from oncall.cli.postmortem import postmortem
from oncall.cli.record import find_record, load_report, write_record
from oncall.cli.webpage import to_html
from oncall.model import names
from oncall.model.alert import Severity
from oncall.model.errors import ErrorCode, OncallError, Terminal
from oncall.model.incident import IncidentStatus
from oncall.model.report import IncidentReport
from oncall.rules.text import plain
from oncall.temporal import incidents, shifts
from oncall.temporal.client import connect
from oncall.temporal.everywhere import Everywhere, everywhere
from oncall.temporal.replay import replay as replay_history


@click.command()
@click.option("--anomaly", required=True, help="What was noticed, in one word, such as elevated_errors.")
@click.option("--severity", required=True, type=click.Choice([s.value for s in Severity]), help="How bad it is.")
@click.option("--service", help="Where it was noticed.")
@click.option("--region", help="Where it was noticed.")
@click.option("--message", default="", help="What was noticed, in a sentence.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The SSH key to sign with.")
@json_option
def trigger(
    anomaly: str,
    severity: str,
    service: str | None,
    region: str | None,
    message: str,
    key: Path | None,
    as_json: bool,
) -> None:
    """Opens an incident, signed by you, and prints its id. Reporting the same again joins the one that runs.

    \b
    Example:
      oncall trigger --anomaly elevated_errors --severity critical --message "checkout fails"
    """
    out = Output(as_json)
    for given in (anomaly, message, service, region):
        try:
            (given or "").encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"{plain(given or '')} is not UTF-8 text") from None
    stack = settings.adopt(out.note)
    config = settings.require_config()
    own_key = settings.own_key(key, stack, out.note)

    async def open_it() -> incidents.Opened:
        client = await connect()
        # Whoever is on call has approved READ access already.
        grant = await shifts.grant(client)
        opening = make_opening(config, anomaly, Severity(severity), message, region, service, own_key, grant=grant)
        return await incidents.open_incident(client, opening)

    opened = loop.run(open_it())
    out.emit(
        {
            "incident_id": opened.incident_id,
            "workflow_id": opened.workflow_id,
            "run_id": opened.run_id,
            "joined": opened.joined,
        }
    )
    out.show(plain(opened.incident_id))
    out.note(
        "joined the incident that runs already" if opened.joined else f"next: `oncall approvals {opened.incident_id}`"
    )


def _line(found: IncidentStatus) -> str:
    done = found.coverage
    waits = f"  waits for {', '.join(found.waiting_for)}" if found.waiting_for else ""
    return plain(
        f"{found.incident_id}  {found.status}  {found.severity} {found.anomaly_type}"
        f"  agents {done.completed}/{done.planned}{waits}  {found.summary}"
    ).rstrip()


@click.command()
@click.argument("incident", required=False)
@json_option
def status(incident: str | None, as_json: bool) -> int:
    """One look at an incident, or at all that run. Exit code 3 when some run and none answered.

    \b
    Example:
      oncall status incident-3fa85f6457171234
    """
    out = Output(as_json)
    stack = settings.adopt(out.note)
    if incident and stack is None and not settings.temporal_is_given() and (folder := find_record(incident, out.note)):
        kept = load_report(folder)
        out.emit(_status_of(kept).model_dump(mode="json"))
        out.show(_line(_status_of(kept)))
        return DONE

    async def look() -> Everywhere[IncidentStatus]:
        client = await connect()
        if incident is None:
            return await everywhere(client, incidents.status, names.INCIDENT_WORKFLOW)
        return Everywhere((await incidents.status(client, incident),), ())

    looked = loop.run(look())
    note_silent(out, looked.silent)
    found = looked.answers
    every = {"incidents": [one.model_dump(mode="json") for one in found], "silent": list(looked.silent)}
    out.emit(found[0] if incident else every)
    if looked.silent and not found:
        return UNREACHABLE
    out.show(*(map(_line, found) if found else ["no incident runs"]))
    return DONE


def _status_of(report: IncidentReport) -> IncidentStatus:
    return IncidentStatus(
        incident_id=report.incident_id,
        workflow_id=report.workflow_id,
        run_id=report.run_id,
        phase=report.phases[-1].phase,
        status=report.status,
        severity=report.severity,
        anomaly_type=report.anomaly_type,
        opened_at=report.opened_at,
        coverage=report.coverage,
        waiting_for=(),
        summary=report.diagnosis.summary if report.diagnosis else "",
    )


@click.command()
@click.argument("incident")
@click.option("--format", "form", type=click.Choice(["md", "html", "json"]), default="md", help="Default: md.")
@json_option
def report(incident: str, form: str, as_json: bool) -> None:
    """Prints the postmortem; of an incident that still runs, what is known so far.

    \b
    Example:
      oncall report incident-3fa85f6457171234 --format html > postmortem.html
    """
    out = Output(as_json or form == "json")
    stack = settings.adopt(out.note)
    folder = None
    if stack is None and not settings.temporal_is_given():
        folder = find_record(incident, out.note)
    found = load_report(folder) if folder else loop.run(_fetch(incident, out))
    if out.as_json:
        out.emit(found)
        return
    blocks = postmortem(found)
    click.echo(to_markdown(blocks) if form == "md" else to_html(blocks), nl=False)


async def _fetch(incident: str, out: Output) -> IncidentReport:
    client = await connect()
    found, history = await incidents.record(client, incident)
    config = settings.config_if_any()
    if history is None or config is None:
        return found
    try:
        return write_record(config.state, found, history)
    except OncallError as error:
        out.note(f"warning: the record was not kept: {error.message}")
        return found


@click.command()
@click.argument("incident_or_file", metavar="INCIDENT|FILE")
@json_option
def replay(incident_or_file: str, as_json: bool) -> int:
    """Re-executes a history against this code and says identical, or where it diverges (exit code 1).

    \b
    Example:
      oncall replay .state/demo/incidents/incident-3fa85f6457171234/*/history.json
    """
    out = Output(as_json)
    text, source = _history(incident_or_file, out)
    result = loop.run(replay_history(text))
    out.emit(
        {
            "source": source,
            "identical": result.identical,
            "events": result.events,
            "divergence": result.divergence,
        }
    )
    if result.identical:
        out.show(plain(f"identical: {result.events} events of {source} replay the same"))
        return DONE
    out.show(plain(f"diverges: {result.divergence}"))
    return ANSWER_IS_NO


def _history(wanted: str, out: Output) -> tuple[str, str]:
    path = Path(wanted)
    if not os.path.isfile(path):
        stack = settings.adopt(out.note)
        folder = None
        if stack is None and not settings.temporal_is_given():
            folder = find_record(wanted, out.note, "history.json")
        if folder is None:
            if path.suffix == ".json" or "/" in wanted:
                raise Terminal(
                    ErrorCode.NOT_FOUND, f"{wanted}: no such file; give a history's JSON or an incident's id"
                )

            async def fetch() -> str:
                client: Client = await connect()
                return await incidents.history_json(client, wanted)

            return loop.run(fetch()), wanted
        path = folder / "history.json"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: {reason}; give a history's JSON or an incident's id") from None
