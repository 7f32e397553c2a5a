"""Timed TCP connects: whether an address accepts connections, and how long the handshake takes."""

import asyncio
import contextlib
import time

from oncall.model.errors import ErrorCode, Retryable
from oncall.model.frozen import Frozen
from oncall.probes.deadline import bounded, endpoint

ATTEMPTS = 3


class Handshakes(Frozen):
    """How `attempts` connects to `address` went; times in milliseconds, `best_ms` None when none succeeded."""

    address: str
    attempts: int
    failed: int
    best_ms: float | None
    worst_ms: float | None


async def connects(address: str) -> Handshakes:
    """Connects to `address` (`host:port`) ATTEMPTS times, one after the other, sending nothing.

    A refused connection is counted, not raised. Raises Retryable(PROBE_FAILED) when the deadline passes first.
    """
    what = f"TCP connect to {address}"
    host, port = endpoint(what, address)

    async def probe() -> Handshakes:
        took: list[float] = []
        failed = 0
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                failed += 1
                continue
            took.append(1000 * (time.perf_counter() - started))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return Handshakes(
            address=address,
            attempts=ATTEMPTS,
            failed=failed,
            best_ms=min(took, default=None),
            worst_ms=max(took, default=None),
        )

    try:
        return await bounded(what, probe)
    except OSError:
        raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: failed") from None
