"""Thirty days on call in minutes: hourly looks, a hundred small problems, on a real server that skips time.

The shift and its incidents are the real workflows; what they see and what agents find is scripted. A person answers by
the simulated clock. Some incidents are left open while a flood of forged decisions makes the shift's run hand over to
the next, so that they outlive a continue-as-new. `python -m tests.campaign.month` prints what was counted.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from activities.implements import implements
from oncall.model import names, steps
from oncall.model.access import Decision, GateStatus
from oncall.model.alert import Severity
from oncall.model.errors import OncallError
from oncall.model.shift import AlertGroup, ShiftPhase, ShiftStatus
from oncall.temporal import gates
from oncall.temporal.replay import replay
from tests.people import Person, approvers
from tests.workflows.conftest import working
from tests.workflows.on_call import Shift, approve_all, begin
from tests.workflows.scripted import FLAG, TOPOLOGY, Script, trouble
from tests.workflows.skipping import Clocks, skipping_server, virtual_now

HOUR = timedelta(hours=1)
SETTLE = timedelta(seconds=2)
GRANT_S, RENEW_BEFORE_S, CLEAR_S = 8 * 3600, 2 * 3600, 5400
HELD_HOURS = 5
MOST_EVENTS = 4_096
MOST_DRIFT_S = 30.0
_FORGED_AT_ONCE = 200
_CALM_HOURS = 3
_CLOSE_S = 60.0


@dataclass(frozen=True)
class Scheduled:
    """A problem of the month: where, from which look on (counted from 0), and in how many, it shows."""

    region: str
    service: str
    first: int
    looks: int


def schedule(problems: int, hours: int, seed: int) -> list[Scheduled]:
    """Problems that come and go, those of one region far enough apart to be told apart."""
    draw = random.Random(f"month:{seed}")
    found: list[Scheduled] = []
    each_has = -(-problems // len(TOPOLOGY.regions))
    share = (hours - _CALM_HOURS) // each_has
    for region in TOPOLOGY.regions:
        services = [place.service for place in TOPOLOGY.services if place.region == region]
        for number in range(each_has):
            looks = draw.randint(1, 2)
            first = _CALM_HOURS + number * share + draw.randint(0, max(0, share - looks - 4))
            found.append(Scheduled(region, draw.choice(services), first, looks))
    return sorted(found, key=lambda each: each.first)[:problems]


@dataclass
class Month(Script):
    """Scripted steps whose looks show what is scheduled for the hour."""

    problems: list[Scheduled] = field(default_factory=list)
    looks: list[datetime] = field(default_factory=list)

    @implements(steps.OBSERVE)
    async def observe(self, task: steps.ObserveIn) -> steps.Observed:
        now = virtual_now()
        number = 0 if not self.looks else round((now - self.looks[0]) / HOUR)
        self.looks.append(now)
        shown = [each for each in self.problems if each.first <= number < each.first + each.looks]
        began = self.looks[0]
        groups: tuple[AlertGroup, ...] = tuple(
            trouble(each.service, each.region, Severity.LOW, began + each.first * HOUR - timedelta(minutes=1))
            for each in shown
        )
        return steps.Observed(as_of=now, services=len(TOPOLOGY.services), groups=groups)


@dataclass
class Counted:
    """What the month came to; `faults` says what should not be."""

    days: int
    seed: int
    looks: int = 0
    drift_s: float = 0.0
    runs: int = 0
    most_events: int = 0
    most_bytes: int = 0
    problems: int = 0
    opened: int = 0
    followed_to_the_end: int = 0
    outlived_a_run: int = 0
    renewals: int = 0
    replayed: int = 0
    forged: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Diary:
    """One month of one shift, lived hour by hour."""

    def __init__(
        self, clocks: Clocks, shift: Shift, person: Person, script: Month, counted: Counted, hold_every: int
    ) -> None:
        self._clocks, self._shift, self._person = clocks, shift, person
        self._script, self._counted, self._hold_every = script, counted, hold_every
        self._held: dict[str, tuple[int, int]] = {}  # run id: released at which hour, opened in which run of the shift
        self._seen: dict[str, str] = {}  # run id: incident id

    @property
    def _client(self) -> Client:
        return self._clocks.client

    async def live(self, hours: int, say: Callable[[str], None]) -> None:
        """Go on call, and through all the hours."""
        await self._shift.answer(self._person, at=await self._now())
        await self._shift.until(lambda now: now.looks > 0)
        first = self._script.looks[0]
        for hour in range(1, hours + 1):
            if not await self._clocks.forward(self._shift.handle.id, first + hour * HOUR + SETTLE):
                raise RuntimeError(f"the shift ended in hour {hour}: {(await self._shift.status()).ended}")
            await self._shift.until(lambda now, hour=hour: now.looks > hour)  # type: ignore[misc]
            await self._answer_renewal()
            await self._attend(hour)
            if hour % 24 == 0:
                say(f"day {hour // 24}: {self._counted.renewals} renewals, {len(self._seen)} incidents")
        for run_id in list(self._held):
            await self._close(run_id)
        await self._clocks.forward(self._shift.handle.id, first + (hours + 1) * HOUR + SETTLE)

    async def _now(self) -> datetime:
        return await self._clocks.now(self._shift.handle.id)

    async def _status(self) -> ShiftStatus:
        """How the shift stands; a run that has just begun answers a moment later."""
        async with asyncio.timeout(_CLOSE_S):
            while True:
                with contextlib.suppress(RPCError):
                    return await self._shift.status()
                await asyncio.sleep(0.05)

    async def _answer_renewal(self) -> None:
        if await self._shift.asks():
            self._counted.renewals += 1
            await self._shift.answer(self._person, at=await self._now())
            await self._shift.until(lambda now: now.phase is ShiftPhase.WATCHING)

    async def _attend(self, hour: int) -> None:
        """Close what is open, but for what is to stay open for a while."""
        status = await self._status()
        for each in status.open:
            if each.run_id in self._seen:
                continue
            self._seen[each.run_id] = each.incident_id
            if len(self._seen) % self._hold_every == 0:
                self._held[each.run_id] = (hour + HELD_HOURS, status.runs)
                await self._hand_over(status.runs)
            else:
                await self._close(each.run_id)
        for run_id, (until, _) in list(self._held.items()):
            if hour >= until:
                await self._close(run_id)

    async def _close(self, run_id: str) -> None:
        incident_id = self._seen[run_id]
        held = self._held.pop(run_id, None)
        await approve_all(self._client, self._person, incident_id, 1, at=await self._clocks.now(incident_id))
        handle = self._client.get_workflow_handle(incident_id, run_id=run_id)
        async with asyncio.timeout(_CLOSE_S):
            await handle.result()
        if held is not None and (await self._status()).runs > held[1]:
            self._counted.outlived_a_run += 1

    async def _hand_over(self, runs: int) -> None:
        """Forged decisions until the shift's run is full and the next one has begun."""
        handle = self._client.get_workflow_handle(self._shift.handle.id)
        forged = Decision(request_digest="sha256:" + "0" * 64, approved=True, decided_at=datetime.now(UTC))
        while (await self._status()).runs == runs:
            self._counted.forged += _FORGED_AT_ONCE
            await asyncio.gather(*(handle.signal(names.SIGNAL_DECIDE, forged) for _ in range(_FORGED_AT_ONCE)))

    def account(self, closed: list[str]) -> None:
        """What became of the incidents. `closed` are the run ids that Temporal has as completed."""
        self._counted.opened = len(self._seen)
        self._counted.followed_to_the_end = len(set(self._seen) & set(closed))


async def live(
    days: int, problems: int, seed: int, hold_every: int, say: Callable[[str], None], *settings: str
) -> Counted:
    """A month (or less) on a server of its own with these `settings`. Every `hold_every`-th incident stays open for
    HELD_HOURS."""
    counted, began = Counted(days, seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="oncall-month-") as folder:
        alice = Person.create(Path(folder), "alice")
        script = Month(approvers(alice), actions=(FLAG,), problems=schedule(problems, days * 24, seed))
        counted.problems = len(script.problems)
        async with skipping_server(*settings) as clocks, working(clocks.client, script):
            shift = await begin(
                clocks.client,
                interval_s=3600,
                grant_s=GRANT_S,
                renew_before_s=RENEW_BEFORE_S,
                clear_s=CLEAR_S,
                answer_by_s=3600,
            )
            diary = Diary(clocks, shift, alice, script, counted, hold_every)
            await diary.live(days * 24, say)
            await shift.stop(alice, at=await clocks.now(shift.handle.id))
            last = await shift.end()
            diary.account(await _completed(clocks.client))
            await _read_runs(clocks.client, shift.handle.id, counted)
            entries = await gates.access(clocks.client, shift.handle.id)
    counted.runs = last.runs
    _judge(counted, script, last.opened, len(last.open), counted.problems // hold_every)
    if any(entry.decision is GateStatus.EXPIRED for entry in entries):
        counted.faults.append("a renewal expired")
    counted.seconds = round(time.monotonic() - began, 1)
    return counted


async def _completed(client: Client) -> list[str]:
    query = f"WorkflowType = '{names.INCIDENT_WORKFLOW}' AND ExecutionStatus = 'Completed'"
    return [one.run_id async for one in client.list_workflows(query)]


async def _read_runs(client: Client, shift_id: str, counted: Counted) -> None:
    """Every run of the shift: how large it is, and whether it replays."""
    async for one in client.list_workflows(f"WorkflowId = '{shift_id}'"):
        history = await client.get_workflow_handle(shift_id, run_id=one.run_id).fetch_history()
        counted.most_events = max(counted.most_events, len(history.events))
        counted.most_bytes = max(counted.most_bytes, sum(event.ByteSize() for event in history.events))
        again = await replay(history.to_json())
        counted.replayed += again.identical
        if not again.identical:
            counted.faults.append(f"run {one.run_id} does not replay: {again.divergence}")


def _judge(counted: Counted, script: Month, opened: int, still_open: int, held: int) -> None:
    first, looks = script.looks[0], counted.days * 24 + 2
    counted.looks = len(script.looks)
    counted.drift_s = round(
        max(abs((when - first - number * HOUR).total_seconds()) for number, when in enumerate(script.looks)), 3
    )
    for wrong, what in (
        (counted.looks != looks, f"{counted.looks} looks instead of {looks}"),
        (counted.drift_s > MOST_DRIFT_S, f"the looks drifted by {counted.drift_s} s"),
        (counted.most_events > MOST_EVENTS, f"a run had {counted.most_events} events"),
        (opened != counted.problems, f"{opened} incidents for {counted.problems} problems"),
        (counted.opened != counted.problems, f"{counted.opened} incidents were seen open"),
        (counted.followed_to_the_end != counted.problems, f"{counted.followed_to_the_end} incidents ended"),
        (still_open > 0, f"{still_open} incidents were still open at the end"),
        (counted.outlived_a_run < held, f"{counted.outlived_a_run} of {held} incidents outlived a run"),
        (script.applied.count("disable_flag") != counted.problems, f"{len(script.applied)} effects"),
    ):
        if wrong:
            counted.faults.append(what)


def main() -> int:
    """Runs the command line; 0 when everything is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--hold-every", type=int, default=10, help="which incidents outlive a run of the shift")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        counted = asyncio.run(live(arguments.days, arguments.problems, arguments.seed, arguments.hold_every, say))
    except (OncallError, RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result: dict[str, Any] = counted.__dict__
    print(json.dumps(result) if arguments.json else "\n".join(f"{key:20} {value}" for key, value in result.items()))
    return 1 if counted.faults else 0


if __name__ == "__main__":
    sys.exit(main())
