"""Slots for a worker's activities that can be closed, so that a worker stops taking tasks before it stops polling.

A poll that is cut off may have been given a task already: the server has it down as started, nobody runs it, and it
counts as a failed attempt once its time is up. (Measured with 150 activities: 34 of them lost in 20 stops of a worker
under load; still 12 where the server ends the polls itself, `frontend.enableCancelWorkerPollsOnShutdown`; none with
slots closed first.) Polls need a slot. Once slots are closed each poll that is open takes at most one more task, and
no other is opened.
"""

import asyncio
import time

from temporalio.worker import (
    CustomSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
)


class ActivitySlots(CustomSlotSupplier):
    """`count` slots, until they are closed. Belongs to the event loop it is made in."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(count)
        self._closed = False
        self._stirred = 0.0

    async def close(self, quiet_s: float, at_most_s: float) -> None:
        """Gives out no slot any more; then waits until no activity has begun or ended for `quiet_s` seconds, or for
        `at_most_s`. What ends often makes a workflow ask for the next step at once, and that must not arrive in the
        moment in which the polls are cut off."""
        self._closed = True
        self._stirred = time.monotonic()
        until = self._stirred + at_most_s
        while (left := min(self._stirred + quiet_s, until) - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """A slot once one is free; never once they are closed, until the worker gives up waiting."""
        await self._free.acquire()
        if self._closed:
            await self._loop.create_future()
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """None: a task that came with a workflow task's answer would not be seen by `close`."""
        return None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """A poll has brought a task; called from the SDK's own threads."""
        self._stirred = time.monotonic()

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Makes a slot free again; called from the SDK's own threads."""
        self._stirred = time.monotonic()
        self._loop.call_soon_threadsafe(self._free.release)
