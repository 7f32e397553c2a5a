"""Tells an incident in the terminal while it happens. Every text that comes from outside goes through `plain`."""

import asyncio
import json
import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from oncall.cli.output import Output
from oncall.cli.postmortem import number
from oncall.cli.request_view import view, what_is_asked
from oncall.model.access import AccessRequest
from oncall.model.coverage import Coverage
from oncall.model.incident import PendingApproval, Phase
from oncall.model.report import IncidentReport
from oncall.rules.ending import GOOD
from oncall.rules.text import clipped, plain

_EVIDENCE_SHOWN = 3


class Story:
    """One telling. In a terminal the agents' progress is a bar that moves; elsewhere, a line each quarter."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._started = time.monotonic()
        self._phase: Phase | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._quarter = 0

    def say(self, text: str, style: str = "") -> None:
        """One line with the seconds since the beginning."""
        stamp = Text(f"{time.monotonic() - self._started:6.1f}s  ", style="dim")
        self._out.show(stamp + Text(plain(text), style=style))

    def chapter(self, title: str) -> None:
        """A new part begins."""
        self._out.show(Rule(Text(plain(title), style="bold"), align="left"))

    def phase(self, phase: Phase) -> None:
        """The incident is in `phase` now."""
        if phase is not self._phase:
            self._phase = phase
            if phase is not Phase.CLOSED:
                self.say(f"· {phase.value.replace('_', ' ')}", "cyan")

    def agents(self, coverage: Coverage) -> None:
        """How many agents have answered."""
        done = coverage.completed + coverage.failed + coverage.timed_out + coverage.revoked + coverage.skipped
        if not coverage.planned or self._quarter == 4:
            return
        if self._out.console.is_terminal:
            self._bar(done, coverage.planned)
        quarter = 4 * done // coverage.planned
        if quarter > self._quarter:
            self._quarter = quarter
            if self._progress is None or quarter == 4:
                self.say(f"{done} of {coverage.planned} agents have answered ({coverage.completed} completed)")

    def _bar(self, done: int, planned: int) -> None:
        if self._progress is None:
            columns = (TextColumn("         agents"), BarColumn(), MofNCompleteColumn())
            self._progress = Progress(*columns, console=self._out.console, transient=True)
            self._task = self._progress.add_task("agents", total=planned)
            self._progress.start()
        assert self._task is not None
        self._progress.update(self._task, completed=done)
        if done >= planned:
            self.close()

    def close(self) -> None:
        """Leaves the terminal as it was; may be called twice."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def request(self, pending: PendingApproval, request: AccessRequest) -> None:
        """What a human is asked, as it will be signed."""
        self._out.show(view(pending, request))

    def diagnosis(self, report: IncidentReport) -> None:
        """What the swarm concluded and on what."""
        diagnosis = report.diagnosis
        if diagnosis is None:
            return
        self.say(f"diagnosis: {diagnosis.summary}", "bold")
        if cause := diagnosis.root_cause:
            where = f"{cause.service} in {cause.region} ({cause.specialist.value})"
            self.say(f"root cause: {where}: {cause.cause}; confidence {cause.confidence:.0%}", "bold")
        for claim in diagnosis.claims:
            self.say(f"  · {claim.text}")
            for key in claim.observations[:_EVIDENCE_SHOWN]:
                if found := report.observations.get(key):
                    value = json.dumps(found.value, sort_keys=True)
                    self.say(f"      [{key}] {found.tool}: {clipped(value, 150)}", "dim")

    def ending(self, report: IncidentReport) -> None:
        """What was done and what was measured."""
        for action in report.actions:
            before, after = json.dumps(action.before), json.dumps(action.after)
            good = action.outcome == "succeeded"
            self.say(f"{action.type} {action.target.identity}: {action.outcome}", "green" if good else "yellow")
            if action.before or action.after:
                self.say(f"    before {clipped(before, 200)}", "dim")
                self.say(f"    after  {clipped(after, 200)}", "dim")
            for step in action.manual_steps:
                self.say(f"    by hand: {step}")
        if report.verification:
            table = Table("check", "region", "service", "before", "after", "limit", "", title="recovery, measured")
            for check in report.verification.checks:
                numbers = (number(check.before), number(check.after), number(check.threshold))
                names = (plain(name) for name in (check.name, check.region, check.service))
                table.add_row(*(Text(text) for text in (*names, *numbers, "ok" if check.ok else "no")))
            self._out.show(table)
        for note in report.notes:
            self.say(f"note: {note}", "yellow")
        good = report.status in GOOD
        self.say(f"incident {report.incident_id}: {report.status}", "bold green" if good else "bold red")

    async def ask(self, request: AccessRequest) -> bool:
        """A person's yes or no from the terminal. Anything but y or yes is a no."""
        print(f"         sign YES to {what_is_asked(request)}? [y/N] ", end="", file=sys.stderr, flush=True)
        return (await read_line()).strip().lower() in ("y", "yes")


async def read_line() -> str:
    """One line from the terminal, without a thread: one that waits in `input` could not be cancelled."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ready.set)
    try:
        await ready.wait()
        return sys.stdin.readline()
    finally:
        loop.remove_reader(sys.stdin.fileno())
