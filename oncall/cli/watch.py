"""`watch`: an incident while it happens, for people in a terminal, for pipes and for programs."""

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from temporalio.client import Client

from oncall.cli import loop, settings
from oncall.cli.exits import ANSWER_IS_NO, DONE
from oncall.cli.following import Sight, changes, follow
from oncall.cli.output import Output, json_option
from oncall.cli.progress_lines import clock, lines
from oncall.cli.progress_view import Board
from oncall.cli.record import find_record, load_report
from oncall.model import names
from oncall.model.errors import ErrorCode, Terminal
from oncall.rules.ending import GOOD
from oncall.rules.progress import progress
from oncall.rules.text import plain
from oncall.temporal import incidents
from oncall.temporal.client import connect
from oncall.temporal.everywhere import running
from oncall.temporal.incidents import Outline

_NAMED = 10
_BLANK_FOR = timedelta(seconds=1)


@click.command()
@click.argument("incident", required=False)
@json_option
def watch(incident: str | None, as_json: bool) -> int:
    """Shows an incident until it has closed: bars per region and specialist, phases, what waits for whom.

    Without INCIDENT the one that runs. In a pipe it prints a line per change, with --json a JSON document per change.
    Exit code 0 when it ended resolved, no_fault or self_recovered, 1 for any other ending and for Ctrl-C.

    \b
    Example:
      oncall watch incident-3fa85f6457171234
    """
    out = Output(as_json)
    stack = settings.adopt(out.note)
    if incident and stack is None and not settings.temporal_is_given() and (folder := find_record(incident, out.note)):
        last = _kept(folder)
        if _redraws(out):
            out.console.print(Board(last, datetime.now(UTC)))
        else:
            _tell(out, None, last)
    else:
        outline = loop.run(_find(incident))
        try:
            last = loop.run(_watch(out, outline))
        except KeyboardInterrupt:
            return _left(out, outline.incident_id)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return ANSWER_IS_NO  # the terminal is gone, and with it whoever watched
    return DONE if last.status in GOOD else ANSWER_IS_NO


async def _find(incident: str | None) -> Outline:
    """The run to watch. Raises Terminal(NOT_FOUND) where none was named and not exactly one runs."""
    client = await connect()
    if incident is not None:
        return await incidents.outline(client, incident)
    found = await running(client, names.INCIDENT_WORKFLOW)
    if len(found) == 1:
        return await incidents.outline(client, found[0])
    if not found:
        raise Terminal(ErrorCode.NOT_FOUND, "no incident runs; name one that has closed, or wait for the next")
    named = ", ".join(found[:_NAMED]) + ", …" * (len(found) > _NAMED)
    raise Terminal(ErrorCode.NOT_FOUND, f"{len(found)} incidents run; name the one to watch: {named}")


def _kept(folder: Path) -> Sight:
    """The last sight of an incident whose record lies in `folder`."""
    report = load_report(folder)
    outline = Outline(
        incident_id=report.incident_id,
        run_id=report.run_id,
        opened_at=report.opened_at,
        status=report.status,
        severity=report.severity,
        anomaly_type=report.anomaly_type,
    )
    return Sight(outline, progress(report), over=True)


async def _watch(out: Output, outline: Outline) -> Sight:
    client = await connect()
    if _redraws(out):
        return await _draw(out.console, client, outline)
    last: Sight | None = None
    async with aclosing(changes(client, outline)) as sights:
        async for sight in sights:
            _tell(out, last, sight)
            last = sight
    assert last is not None
    return last


def _redraws(out: Output) -> bool:
    # Not what rich believes of the console: FORCE_COLOR makes a terminal of any pipe.
    return not out.as_json and sys.stdout.isatty() and not out.console.is_dumb_terminal


def _tell(out: Output, before: Sight | None, now: Sight) -> None:
    """What has changed, for a program or a pipe."""
    out.emit(now.document())
    if not out.as_json:
        for line in lines(before, now):
            click.echo(f"{clock(datetime.now(UTC))}  {line}")
    elif now.silent_since and (before is None or before.silent_since is None):
        out.note(f"no answer since {clock(now.silent_since)}; still asking: {now.why_silent}")


async def _draw(console: Console, client: Client, outline: Outline) -> Sight:
    """Redraws a screen of its own until the incident is over, then leaves the last state on the terminal's."""
    with _screen(console) as live:
        async with aclosing(follow(client, outline)) as sights:
            opening_at = datetime.now(UTC) + _BLANK_FOR
            async for sight in sights:
                moves = sight.progress is not None and sight.progress.closed_at is None
                # One that has closed already is shown without a flash of another screen.
                if live.is_started or moves or datetime.now(UTC) > opening_at:
                    live.start()
                    live.update(Board(sight, datetime.now(UTC), fit=True), refresh=True)
    console.print(Board(sight, datetime.now(UTC)))
    return sight


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Live]:
    """A screen beside the terminal's own, not opened yet. Whatever ends it, the terminal is as it was before; also
    while Ctrl-Z has stopped us."""
    live = Live(console=console, screen=True, auto_refresh=False)

    def pause() -> None:
        open_before = live.is_started
        live.stop()
        os.kill(os.getpid(), signal.SIGSTOP)
        if open_before:
            live.start()

    running = asyncio.get_running_loop()
    running.add_signal_handler(signal.SIGTSTP, pause)
    try:
        yield live
    finally:
        running.remove_signal_handler(signal.SIGTSTP)
        # A terminal that is gone takes nothing back.
        with contextlib.suppress(OSError):
            live.stop()


def _left(out: Output, incident_id: str) -> int:
    message = f"stopped watching; {incident_id} goes on: look again with `oncall watch {incident_id}`"
    # Stopped by a terminal that closed, there may be nobody left to tell.
    with contextlib.suppress(OSError):
        out.emit({"error": {"code": "interrupted", "message": plain(message)}})
        out.note(message)
    return ANSWER_IS_NO
