"""How recovery is looked for: again and again, until it has held; and no longer than a worker has before it must stop.

An attempt that its worker's end would cut off counts as failed, and a patience of minutes outlives every grace period.
So an attempt looks for seconds, and whoever called decides whether to look on.
"""

import contextlib
import time
from asyncio import timeout
from collections.abc import Awaitable, Callable

from temporalio import activity

from oncall.model.errors import ErrorCode, OncallError
from oncall.model.verification import Verification

HOLD_S = 8.0
"""Recovery counts once it has been measured over this long: an outage that only paused relapses within 3 s."""

POLL_S = 1.0

Look = Callable[[], Awaitable[Verification]]


async def until_held(look: Look, wait_s: float) -> Verification:
    """The last look: recovered once looks have been good for `HOLD_S`, not recovered when one after `wait_s` is bad.

    So it lasts at most `wait_s`, `HOLD_S` and two looks. When the worker is told to stop it ends with the look that
    is under way, not recovered and not settled; nothing is lost by that but the time that recovery had held.
    A look without telemetry is a bad one, and says so.
    """
    # Durations by the clock that nobody sets: a corrected wall clock must not shorten the hold.
    begun = time.monotonic()
    well_since: float | None = None
    while True:
        seen = await _seen(look)
        now = time.monotonic()
        if not seen.recovered:
            well_since = None
            if now - begun >= wait_s:
                return seen
        else:
            well_since = now if well_since is None else well_since
            if now - well_since >= HOLD_S:
                return seen
        if await _told_to_stop(POLL_S):
            return seen.model_copy(update={"recovered": False, "settled": False})


async def _seen(look: Look) -> Verification:
    try:
        return await look()
    except OncallError as error:
        if error.code is not ErrorCode.TELEMETRY_UNAVAILABLE:
            raise
        return Verification(recovered=False, improved=False, checks=(), blind=(error.message,))


async def _told_to_stop(within_s: float) -> bool:
    """Waits for `within_s`, or until the worker is told to stop; whether it was."""
    with contextlib.suppress(TimeoutError):
        async with timeout(within_s):
            await activity.wait_for_worker_shutdown()
    return activity.is_worker_shutdown()
