"""What every live probe shares: one deadline, bounded concurrency, and where a server is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from oncall.model.errors import ErrorCode, Retryable, Terminal

DEADLINE_S = 1.0
# All agents of a wave probe at once: without a bound they would only time out on each other's work.
_AT_ONCE = 8

Result = TypeVar("Result")

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def bounded(what: str, probe: Callable[[], Awaitable[Result]], deadline_s: float = DEADLINE_S) -> Result:
    """The probe's result, if it comes within `deadline_s` seconds of its start; waiting for a slot is not counted.

    Raises Retryable(PROBE_FAILED) naming `what` when the deadline passes.
    """
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))
    async with slots:
        try:
            async with asyncio.timeout(deadline_s):
                return await probe()
        except TimeoutError:
            raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: no answer within {deadline_s:g} s") from None


def endpoint(what: str, server: str) -> tuple[str, int]:
    """(host, port) of `host:port`; IPv6 hosts in brackets. Raises Terminal(PROBE_FAILED) naming `what`."""
    host, _, port = server.strip().rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: the credential's server field is not host:port")
    return host, int(port)
