"""Agents that wait for one window go on one at a time, so that whoever else uses the event loop is served between."""

import asyncio
from datetime import UTC, datetime

from activities.sources import InTurn
from oncall.model.topology import Topology
from oncall.telemetry.window import Window

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


class SlowToRead:
    """One window, there for every reader at the same moment."""

    def __init__(self) -> None:
        self._ready = asyncio.Event()

    def arrive(self) -> None:
        self._ready.set()

    async def topology(self) -> Topology:
        return Topology(regions=(), services=(), calls=())

    async def window(self, start: datetime, end: datetime) -> Window:
        await self._ready.wait()
        return Window(start=start, end=end, series={})


async def test_the_loop_turns_between_any_two_readers() -> None:
    source = SlowToRead()
    telemetry = InTurn(source)
    gone_on = 0

    async def agent() -> Window:
        nonlocal gone_on
        window = await telemetry.window(START, END)
        gone_on += 1
        return window

    agents = [asyncio.create_task(agent()) for _ in range(150)]
    await asyncio.sleep(0.01)
    source.arrive()
    within_a_turn = []
    while gone_on < len(agents):
        before = gone_on
        await asyncio.sleep(0)
        within_a_turn.append(gone_on - before)
    assert max(within_a_turn) == 1
    assert {(window.start, window.end) for window in await asyncio.gather(*agents)} == {(START, END)}


async def test_a_reader_that_gives_up_does_not_stop_the_others() -> None:
    source = SlowToRead()
    telemetry = InTurn(source)
    agents = [asyncio.create_task(telemetry.window(START, END)) for _ in range(20)]
    await asyncio.sleep(0)
    source.arrive()
    await asyncio.sleep(0)
    for agent in agents[::2]:
        agent.cancel()
    ended = await asyncio.gather(*agents, return_exceptions=True)
    assert [isinstance(one, Window) for one in ended[1::2]] == [True] * 10
