"""Heartbeats while an activity runs, so that a dead worker is noticed and a cancellation arrives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from temporalio import activity

INTERVAL_S = 2.0


@contextlib.asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat every `INTERVAL_S` seconds until the block ends; outside an activity, nothing.

    The first one comes after `INTERVAL_S`: a hundred agents that answer sooner than that would else double what the
    server has to write. Details carry nothing: they are kept in history.
    """
    if not activity.in_activity():
        yield
        return

    async def beat() -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            activity.heartbeat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
