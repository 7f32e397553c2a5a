"""One incident under fire: a fault, an opening, a person who answers, and processes that die, until it has closed."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from temporalio.service import RPCError

from oncall.cli.opening import make_opening
from oncall.cli.rehearsal import ANOMALY, APPROVER, FALSE_ALARM
from oncall.cli.stack import Stack
from oncall.cli.symptom import Entrances
from oncall.config import load_config
from oncall.model.alert import Severity
from oncall.model.errors import ErrorCode, OncallError, Terminal
from oncall.model.names import record_folder
from oncall.model.opening import Opening
from oncall.model.report import IncidentReport
from oncall.temporal import incidents
from oncall.temporal.replay import replay
from tests.campaign import agents, shift
from tests.campaign.events import Event, Source
from tests.campaign.fleet import Fleet
from tests.campaign.history import Follower, Handle, watch_pending
from tests.campaign.judge import Truth, Verdict, judge
from tests.campaign.person import Manner, Person
from tests.campaign.points import Point
from tests.campaign.retries import waits
from tests.campaign.strikes import Shot, Strike, Strikes
from tests.campaign.tails import LedgerTail, LinesTail, ReportTail, Tails, flag_write, terminated, vault_request

READY_S = 90.0
CALM_S = 120.0
SYMPTOM_S = 30.0
CLOSE_S = 420.0
"""An incident that has not closed by then is lost."""

Result = TypeVar("Result")

_AGAIN_S = 0.2
_NOTICED_PERCENT = 10.0
_SETTLE_S = 10.0
_MISSED = 50
"""Times in a row that an incident was not found, until it is believed."""


@dataclass(frozen=True)
class Scene:
    """Where incidents happen: a stack whose processes are `fleet`, and the keys of the approver and of a stranger."""

    stack: Stack
    fleet: Fleet
    keys: tuple[Path, Path]


@dataclass(frozen=True)
class Plan:
    """One incident of a campaign. `shots` are the kills at random moments, restarts of the server among them. With
    `by_shift` a shift watches and opens it; otherwise it is opened by hand."""

    scenario: str
    seed: int
    points: tuple[Point, ...] = ()
    shots: tuple[Shot, ...] = ()
    manner: Manner = field(default_factory=Manner)
    by_shift: bool = False


@dataclass(frozen=True)
class Fought:
    """What became of it. `seconds` from the opening to the closed workflow; None where it never closed. `waits` are the
    seconds that steps waited for the attempt that counted, by step."""

    plan: Plan
    incident_id: str
    strikes: tuple[Strike, ...]
    verdict: Verdict
    seconds: float | None
    replayed: bool = False
    waits: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class _Sight:
    """What is watched of one incident while it runs."""

    strikes: Strikes
    seen: list[Event] = field(default_factory=list)

    def see(self, event: Event) -> None:
        """Keep it, then fire: called from several threads."""
        self.strikes.see(event)
        self.seen.append(event)


async def under_fire(scene: Scene, plan: Plan) -> Fought:
    """Runs one incident of the plan from a calm estate to a healed one.

    Raises OncallError when the estate itself fails, and TimeoutError when a process does not come back.
    """
    stack, estate = scene.stack, scene.stack.estate
    await scene.fleet.ready(READY_S)
    entrances = Entrances(stack.telemetry)
    await entrances.calm(CALM_S)
    before = await shift.go_on_call(stack, scene.keys[0]) if plan.by_shift else None
    fault = await estate.inject(plan.scenario, plan.seed)
    try:
        if before is None and plan.scenario != FALSE_ALARM:
            await _failing(entrances)
        fought = await _fight(scene, plan, fault)
    finally:
        await estate.heal(fault)
    if before is not None:
        after = await shift.end(stack, scene.keys[0])
        if (opened := after.opened - before.opened) != 1:
            fought.verdict.broken.append(f"the shift opened {opened} incidents for one fault")
    return fought


async def _failing(entrances: Entrances) -> None:
    """Waits until users notice, for SYMPTOM_S at most."""
    deadline = time.monotonic() + SYMPTOM_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OncallError):
            if max((await entrances.shares(4.0)).values(), default=0.0) >= _NOTICED_PERCENT:
                return
        await asyncio.sleep(1.0)


async def _fight(scene: Scene, plan: Plan, fault: str) -> Fought:
    strikes = Strikes(plan.points, scene.fleet)
    strikes.begin()
    firing = asyncio.create_task(strikes.fire_at(plan.shots))
    try:
        if not plan.by_shift:
            opening = _opening(scene)
            return await _fight_over(scene, plan, fault, strikes, opening.incident_id, _open(scene, opening))
        found = await shift.noticed(scene.stack)
        if found is None:
            lost = Verdict("lost", lost=[f"the shift noticed nothing within {shift.NOTICED_S:.0f} s"])
            return Fought(plan, "none", tuple(strikes.fired), lost, None)
        return await _fight_over(scene, plan, fault, strikes, found.incident_id, _opened(found.run_id))
    finally:
        firing.cancel()
        strikes.disarm()


def _opening(scene: Scene) -> Opening:
    config, labels = load_config(scene.stack.config), {"run": secrets.token_hex(4)}
    message = "users see more errors than usual"
    return make_opening(config, ANOMALY, Severity.CRITICAL, message, None, None, scene.keys[0], labels)


async def _opened(run_id: str) -> str:
    return run_id


async def _fight_over(
    scene: Scene, plan: Plan, fault: str, strikes: Strikes, incident_id: str, opening: Coroutine[Any, Any, str]
) -> Fought:
    """One incident, from its opening (which gives its run's id) to the verdict."""
    config = load_config(scene.stack.config)
    client, epoch = scene.stack.client, time.time()
    sight = _Sight(strikes)
    see = sight.see
    follower = Follower(client.get_workflow_handle(incident_id), see)
    person = Person(client, config, scene.keys, scene.fleet, see, plan.manner)
    async with _watched(scene, sight, follower, person, incident_id) as (tails, watching):
        began = time.monotonic()
        run_id = await opening
        tails.add(ReportTail(scene.stack.state, incident_id, run_id))
        outcome = await _unless_one_fails(_closed(scene, incident_id, run_id), watching)
        seconds = time.monotonic() - began
        truth = await _truth(scene, fault)
        strikes.disarm()
        if isinstance(outcome, IncidentReport):
            await _told(follower)
    if not isinstance(outcome, IncidentReport):
        return Fought(plan, incident_id, tuple(strikes.fired), Verdict("lost", lost=[outcome]), None)
    history = await _history(client.get_workflow_handle(incident_id, run_id=run_id))
    for event in history.events:
        follower.take(event)
    # An incident that a shift opened may have had agents before it was known to us.
    since = epoch - (shift.NOTICED_S if plan.by_shift else 1.0)
    stored = await asyncio.to_thread(agents.attempts_stored, scene.stack.state / "blobs", incident_id, since)
    verdict = judge(outcome, sight.seen, person.sent, APPROVER, agents.account(history.events, stored), truth)
    verdict.broken.extend(f"event {event} of the history was rewritten" for event in follower.rewritten)
    gone = sorted(set(follower.seen) - {event.event_id for event in history.events})
    verdict.broken.extend(f"event {event} of the history was there and is gone" for event in gone)
    if not (scene.stack.state / record_folder(incident_id, run_id) / "report.json").exists():
        verdict.broken.append("no report on disk")
    again = await replay(history.to_json())
    if not again.identical:
        verdict.broken.append(f"the history does not replay: {again.divergence}")
    return Fought(
        plan,
        incident_id,
        tuple(strikes.fired),
        verdict,
        seconds,
        again.identical,
        waits(history.events),
    )


@contextlib.asynccontextmanager
async def _watched(
    scene: Scene, sight: _Sight, follower: Follower, person: Person, incident_id: str
) -> AsyncIterator[tuple[Tails, list[asyncio.Task[None]]]]:
    """Everything that can be seen is watched, and the person answers, while the block lasts: the tails, and the tasks
    that do the rest."""
    estate = scene.stack.state / "estate"
    tails = Tails(sight.see)
    tails.add(
        LedgerTail(scene.stack.state / "ledger.db"),
        LinesTail(estate / "flags-audit.jsonl", flag_write),
        LinesTail(estate / "connect-requests.jsonl", vault_request),
        *(
            LinesTail(path, terminated(path.stem.removeprefix("postgres-")))
            for path in sorted((estate / "logs").glob("postgres-*.log"))
        ),
    )
    tails.start()
    handle = scene.stack.client.get_workflow_handle(incident_id)
    pending = watch_pending(handle, sight.see, lambda: sight.strikes.waits_for(Source.PENDING))
    tasks = [asyncio.create_task(work) for work in (follower.run(), pending, person.run(incident_id))]
    try:
        yield tails, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(tails.stop)


async def _unless_one_fails(work: Coroutine[Any, Any, Result], tasks: list[asyncio.Task[None]]) -> Result:
    """The work's result; raises what one of the tasks raises before."""
    working = asyncio.create_task(work)
    waiting: set[asyncio.Task[Any]] = {working, *tasks}
    try:
        while not working.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {working}:
                task.result()
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _open(scene: Scene, opening: Opening) -> str:
    """The run's id, once the server has acknowledged it: from then on it must not be lost."""
    while True:
        try:
            return (await incidents.open_incident(scene.stack.client, opening)).run_id
        except OncallError:
            await asyncio.sleep(_AGAIN_S)


async def _closed(scene: Scene, incident_id: str, run_id: str) -> IncidentReport | str:
    """The report, or why there is none."""
    deadline = time.monotonic() + CLOSE_S
    missing = 0
    while (left := deadline - time.monotonic()) > 0:
        try:
            return await incidents.result(scene.stack.client, incident_id, run_id, left)
        except OncallError as error:
            # A server that has only just started may not know its namespace yet.
            missing = missing + 1 if error.code is ErrorCode.NOT_FOUND else 0
            if isinstance(error, Terminal) and missing in (0, _MISSED):
                return error.message
            await asyncio.sleep(_AGAIN_S)
    return f"{incident_id} has not closed within {CLOSE_S:.0f} s"


async def _truth(scene: Scene, fault: str) -> Truth:
    """What the estate says of the fault at this moment. The admin API is asked as an operator would: `EstateAdmin` does
    not tell what is still active, because nothing of the product may know."""
    info: dict[str, Any] = scene.stack.estate_info
    token = Path(info["admin_token_file"]).read_text(encoding="ascii").strip()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=info["admin"], headers=headers, trust_env=False, timeout=15) as client:
        faults = (await client.get("/faults")).raise_for_status().json()
    active = next(bool(one["active"]) for one in faults if one["fault_id"] == fault)
    return Truth(active, sum((await scene.stack.estate.runaways()).values()))


async def _told(follower: Follower) -> None:
    """Waits until the follower has seen the end."""
    deadline = time.monotonic() + _SETTLE_S
    while not follower.closed and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


async def _history(handle: Handle) -> Any:
    while True:
        try:
            return await handle.fetch_history()
        except RPCError:
            await asyncio.sleep(_AGAIN_S)
