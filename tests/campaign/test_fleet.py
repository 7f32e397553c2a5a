"""Contract: what is killed runs again at once, what is kept down does not, and nobody dies unnoticed."""

import asyncio
import signal
import sys
from pathlib import Path

import psutil
import pytest

from oncall.temporal.embedded import EmbeddedServer
from tests.campaign import fleet as fleets
from tests.campaign.events import Event, Source
from tests.campaign.fleet import Fleet, Process
from tests.campaign.incident import Fought
from tests.campaign.judge import Verdict
from tests.campaign.plan import POINTS_PER_INCIDENT, Planner
from tests.campaign.points import POINTS, SERVER, Point
from tests.campaign.strikes import RANDOM, Shot, Strike, Strikes

READY = "import json, time, pathlib; print(json.dumps({'ready': True}), flush=True); "
SLEEP = READY + "time.sleep(600)"
SHORT = READY + "time.sleep(0.5)"


def program(tmp_path: Path, code: str) -> Process:
    """A supervised process that runs some Python in the place of the remediate worker."""
    return fleets.worker("remediate", {"remediate": (sys.executable, "-c", code)}, tmp_path, tmp_path)


async def test_what_is_killed_runs_again_and_what_is_kept_down_does_not(tmp_path: Path) -> None:
    process = program(tmp_path, SLEEP)
    async with Fleet([process]) as fleet:
        await fleet.ready(20)
        assert fleet.kill("remediate", keep_down=True)
        await fleet.gone(["remediate"])
        await asyncio.sleep(0.3)
        assert not fleet.is_ready("remediate")
        assert not fleet.kill("remediate"), "nobody is there"
        fleet.release("remediate")
        await fleet.ready(20)
        assert (fleet.struck()["remediate"], len(fleet.start_s("remediate")), fleet.deaths()) == (1, 2, [])
    left = [p for p in psutil.process_iter(["cmdline"]) if SLEEP in (p.info["cmdline"] or [])]
    assert left == []


async def test_a_death_of_its_own_is_told(tmp_path: Path) -> None:
    async with Fleet([program(tmp_path, SHORT)]) as fleet:
        async with asyncio.timeout(20):
            while not fleet.deaths():
                await asyncio.sleep(0.05)
    assert "stopped with code 0" in fleet.deaths()[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_server_comes_back_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    first = await EmbeddedServer.start(tmp_path, 0, 0)
    async with Fleet([fleets.server(tmp_path, first)]) as fleet:
        await fleet.ready(20)
        assert fleet.kill(SERVER, number)
        await _restarted(fleet, 2, SERVER)
        again = await EmbeddedServer.start(tmp_path / "other", int(first.address.rpartition(":")[2]), 0)
        await again.stop()
        assert again.address != first.address, "the port is taken: by the server that came back"


async def test_a_point_fires_once_at_its_event_and_never_after_the_end(tmp_path: Path) -> None:
    second_row = Point("second row", "p", "remediate", Source.LEDGER, "claim", nth=2)
    held = Point("held", "q", "remediate", Source.PERSON, "signs:read", until="sent:read")
    async with Fleet([program(tmp_path, SLEEP)]) as fleet:
        await fleet.ready(20)
        strikes = Strikes([second_row, held], fleet)
        strikes.begin()
        claim = Event(Source.LEDGER, "claim")
        strikes.see(claim)
        strikes.see(Event(Source.HISTORY, "claim"))
        assert strikes.fired == []
        strikes.see(claim)
        strikes.see(claim)
        assert [(strike.point, strike.hit, strike.ready) for strike in strikes.fired] == [("second row", 1, 1)]
        await _restarted(fleet, 2)
        strikes.see(Event(Source.PERSON, "signs:read"))
        await fleet.gone(["remediate"])
        await asyncio.sleep(0.3)
        assert not fleet.is_ready("remediate")
        strikes.see(Event(Source.PERSON, "sent:read"))
        await _restarted(fleet, 3)
        await strikes.fire_at([Shot(0.0, "remediate")])
        assert [strike.point for strike in strikes.fired] == ["second row", "held", RANDOM]
        await _restarted(fleet, 4)
        strikes.disarm()
        await strikes.fire_at([Shot(0.0, "remediate")])
        assert len(strikes.fired) == 3


async def _restarted(fleet: Fleet, starts: int, name: str = "remediate") -> None:
    async with asyncio.timeout(20):
        while len(fleet.start_s(name)) < starts:
            await asyncio.sleep(0.02)


def test_a_seed_deals_the_same_campaign_again_and_every_point_until_it_hits() -> None:
    plans = [Planner(7, POINTS, 100, 10).next(0) for _ in range(2)]
    assert plans[0] == plans[1]
    assert Planner(8, POINTS, 100, 10).next(0) != plans[0]
    planner, missed = Planner(7, POINTS, 0, 0), set[str]()
    for number in range(200):
        if planner.done:
            break
        plan = planner.next(number)
        assert (len(plan.points) == 0) is plan.by_shift
        assert len(plan.points) <= POINTS_PER_INCIDENT
        assert len({point.phase for point in plan.points}) == len(plan.points)
        # Each point misses once: it is dealt again.
        hits = tuple(Strike(p.name, p.victim, 1.0, int(p.name in missed), 1) for p in plan.points)
        missed |= {point.name for point in plan.points}
        planner.note(Fought(plan, "i", hits, Verdict("resolved"), 1.0))
    assert planner.done
    assert missed == {point.name for point in POINTS}
    assert len({point.name for point in POINTS}) == len(POINTS)
