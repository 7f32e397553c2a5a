"""A whole campaign: incident after incident on one stack until everything was shot that should be."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from oncall.access.ledger import Ledger
from oncall.cli import sshkeys
from oncall.cli.children import python
from oncall.cli.rehearsal import DemoApprover
from oncall.cli.stack import MARKER, ROLES, running_stack
from oncall.model.errors import OncallError
from oncall.temporal.everywhere import ALL, running
from tests.campaign import fleet as fleets
from tests.campaign.fleet import Commands, Fleet
from tests.campaign.incident import Fought, Plan, Scene, under_fire
from tests.campaign.plan import Planner
from tests.campaign.points import EFFECT, SERVER
from tests.campaign.strikes import RANDOM

STRANGER = "stranger"
MOST_INCIDENTS = 60
NAIVE = python("tests.campaign.naive")

Say = Callable[[str], None]


@dataclass
class Result:
    """What a campaign came to. `control` is the incident with the naive remedy, None when there was none; `cut_short`
    says what ended the campaign before its time."""

    seed: int
    fought: list[Fought] = field(default_factory=list)
    control: Fought | None = None
    unreached: tuple[str, ...] = ()
    struck: Counter[str] = field(default_factory=Counter)
    deaths: list[str] = field(default_factory=list)
    worker_start_s: list[float] = field(default_factory=list)
    server_start_s: list[float] = field(default_factory=list)
    ledger_rows: int = 0
    cut_short: str = ""
    doubled_in_all: list[str] = field(default_factory=list)
    left_running: list[str] = field(default_factory=list)
    seconds: float = 0.0
    load: tuple[float, float] = (0.0, 0.0)

    def faults(self) -> list[str]:
        """Everything that should not be, in words: empty when the campaign proves what it is for."""
        found = [f"{one.incident_id}: {fault}" for one in self.fought for fault in one.verdict.faults()]
        found += [f"still running at the end: {incident}" for incident in self.left_running]
        found += [f"DOUBLED EFFECT, over the whole campaign: {line}" for line in self.doubled_in_all]
        found += [f"cut short: {self.cut_short}"] if self.cut_short else []
        found += [f"point never hit anybody: {name}" for name in self.unreached]
        if self.control is not None and not self.control.verdict.effects.doubled:
            found.append("the naive remedy was not caught: this campaign could not see a doubled effect")
        return found


@asynccontextmanager
async def scene(state: Path, seed: int, say: Say) -> AsyncIterator[tuple[Scene, Commands]]:
    """A stack in `state`, made afresh, whose workers and server are under our supervisor; what runs as which role may
    be changed."""
    if (state / MARKER).exists():
        shutil.rmtree(state)
    approver = DemoApprover(state)
    try:
        async with running_stack(state, seed, approver.enrol, lambda part, _: say(f"{part} ready")) as stack:
            stranger = state / STRANGER
            sshkeys.generate(stranger, STRANGER, False)
            commands = fleets.real()
            first = dict(zip(ROLES, stack.children[1:], strict=True))
            processes = [
                fleets.worker(role, commands, stack.config.parent, state / "logs", first[role]) for role in ROLES
            ]
            async with Fleet([*processes, fleets.server(state, stack.server)]) as fleet:
                yield Scene(stack, fleet, (approver.key, stranger)), commands
    finally:
        approver.forget()


async def run(state: Path, seed: int, planner: Planner, with_control: bool, say: Say) -> Result:
    """Runs incidents as `planner` deals them, then one with the naive remedy."""
    result = Result(seed)
    began, load_before = time.monotonic(), os.getloadavg()[0]
    async with scene(state, seed, say) as (at, commands):
        try:
            while not planner.done and len(result.fought) < MOST_INCIDENTS:
                fought = await under_fire(at, planner.next(len(result.fought)))
                planner.note(fought)
                result.fought.append(fought)
                say(line(len(result.fought), fought))
            result.doubled_in_all = doubled_in_all(at)
            if with_control:
                result.control = await control(at, commands, seed)
                say(line(0, result.control))
            await close(at, result)
        except (OncallError, TimeoutError) as error:
            # What was seen so far is worth more than the rest.
            result.cut_short = str(error)
        result.unreached = tuple(point.name for point in planner.open_points)
    result.seconds = time.monotonic() - began
    result.load = (load_before, os.getloadavg()[0])
    return result


async def control(at: Scene, commands: Commands, seed: int) -> Fought:
    """One incident with a naive worker in the place of the remediate worker, killed after its effect."""
    commands["remediate"] = NAIVE
    await at.fleet.replace("remediate")
    return await under_fire(at, Plan("cascading_failure", seed, points=(EFFECT,)))


async def close(at: Scene, result: Result) -> None:
    """What can be said once no incident runs any more."""
    await at.fleet.ready(60.0)
    result.left_running = await running(at.stack.client, *ALL)
    ledger = Ledger(at.stack.state / "ledger.db")
    result.ledger_rows = ledger.verify()
    ledger.close()
    result.struck, result.deaths = at.fleet.struck(), at.fleet.deaths()
    result.worker_start_s = [second for role in ROLES for second in at.fleet.start_s(role)]
    result.server_start_s = at.fleet.start_s(SERVER)


def doubled_in_all(at: Scene) -> list[str]:
    """Approvals under which the flag service was written to more than once, also after their incident had closed."""
    lines = (at.stack.state / "estate" / "flags-audit.jsonl").read_text(encoding="utf-8").splitlines()
    writers = Counter(str(json.loads(one)["updated_by"]) for one in lines)
    return [f"{times} writes under {by}" for by, times in writers.items() if times > 1 and by.startswith("sha256:")]


def line(number: int, fought: Fought) -> str:
    """One incident on one line, with what was wrong below it."""
    verdict, shot = fought.verdict, Counter(strike.point for strike in fought.strikes if strike.hit)
    at = ", ".join(name for name in shot if name != RANDOM) or "no point"
    who = f"incident {number}" if number else "control, naive remedy"
    took = "–" if fought.seconds is None else f"{fought.seconds:.0f} s"
    swarm = verdict.agents
    head = (
        f"{who}: {fought.plan.scenario} {fought.plan.seed} {verdict.ending} after {took};"
        f" {shot.total()} kills ({at}; {shot[RANDOM]} random);"
        f" agents {swarm.acknowledged}/{swarm.planned}, {swarm.again} ran again; {verdict.effects.taken} effects"
    )
    reasons = [f"    because {verdict.why}"] if verdict.why else []
    return "\n".join([head, *reasons, *(f"    !! {fault}" for fault in verdict.faults())])
