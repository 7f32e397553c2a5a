"""Contract: a slot is given out once one is free, and none at all once they are closed; closing takes as long as tasks
still come and go, but no longer than it may."""

import asyncio
import time
from typing import Any

import pytest

from oncall.temporal.slots import ActivitySlots

# The suppliers look at no context.
CONTEXT: Any = None
SOON_S = 0.05


async def refused(slots: ActivitySlots) -> None:
    """Fails when a slot is given out."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slots.reserve_slot(CONTEXT), SOON_S)


async def test_a_slot_is_given_out_once_one_is_free() -> None:
    slots = ActivitySlots(2)
    for _ in range(2):
        await asyncio.wait_for(slots.reserve_slot(CONTEXT), SOON_S)
    await refused(slots)
    # The SDK gives it back from a thread of its own.
    await asyncio.to_thread(slots.release_slot, CONTEXT)
    await asyncio.wait_for(slots.reserve_slot(CONTEXT), SOON_S)


async def test_none_is_given_out_once_they_are_closed_not_even_to_who_waited() -> None:
    slots = ActivitySlots(1)
    await slots.reserve_slot(CONTEXT)
    waiting = asyncio.create_task(slots.reserve_slot(CONTEXT))
    await asyncio.sleep(0)
    await slots.close(0, 0)
    slots.release_slot(CONTEXT)
    assert not (await asyncio.wait((waiting,), timeout=SOON_S))[0]
    waiting.cancel()
    slots.release_slot(CONTEXT)
    await refused(slots)


async def stir(slots: ActivitySlots, times: int) -> None:
    """An activity begins, or ends, every 0.1 s."""
    for number in range(times):
        await asyncio.sleep(0.1)
        (slots.mark_slot_used if number % 2 else slots.release_slot)(CONTEXT)


@pytest.mark.parametrize(
    ("times", "at_most_s", "expected_s"),
    [(0, 60, 0.3), (5, 60, 0.8), (10**6, 1, 1)],
    ids=["quiet", "for a while", "all the time"],
)
async def test_closing_waits_until_nothing_stirs(times: int, at_most_s: float, expected_s: float) -> None:
    slots, began = ActivitySlots(9), time.monotonic()
    stirring = asyncio.create_task(stir(slots, times))
    await slots.close(0.3, at_most_s)
    stirring.cancel()
    assert expected_s <= time.monotonic() - began <= expected_s + 5
