"""What users of the estate notice: the error share at its entrances.

Reads the metrics `requests(1/s)` and `errors(1/s)` that every service of the estate records.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from oncall.model.errors import ErrorCode, OncallError, Retryable
from oncall.telemetry.parquet import ParquetTelemetry

BASELINE_S = 24.0
CALM_PERCENT = 2.0
_RECENT_S = 8.0
_POLL_S = 1.0

Shares = dict[tuple[str, str], float]


class Entrances:
    """The estate's entrances, watched from outside."""

    def __init__(self, telemetry: Path) -> None:
        self._telemetry = ParquetTelemetry(telemetry)

    async def shares(self, seconds: float) -> Shares:
        """Failed requests in percent over the last `seconds`, by (region, service)."""
        topology = await self._telemetry.topology()
        now = datetime.now(UTC)
        window = await self._telemetry.window(now - timedelta(seconds=seconds), now)
        shares: Shares = {}
        for region in topology.regions:
            for service in topology.entrances(region):
                metrics = window.series.get((region, service), {})
                requests, errors = metrics.get("requests(1/s)"), metrics.get("errors(1/s)")
                if requests is not None and errors is not None and requests.values.sum() > 0:
                    shares[region, service] = 100.0 * float(errors.values.sum() / requests.values.sum())
        return shares

    async def history_s(self) -> float:
        """How many seconds of telemetry there are at the entrances (at most five minutes)."""
        now = datetime.now(UTC)
        window = await self._telemetry.window(now - timedelta(minutes=5), now)
        times = [s.times for metrics in window.series.values() for s in metrics.values() if len(s)]
        return max((float(t[-1] - t[0]) for t in times), default=0.0)

    async def calm(self, timeout_s: float) -> Shares:
        """Waits for BASELINE_S of telemetry and for every entrance to be calm; returns their shares.

        Raises Retryable(TELEMETRY_UNAVAILABLE) when that does not happen within `timeout_s`.
        """

        async def look() -> Shares | None:
            shares = await self.shares(_RECENT_S)
            calm = bool(shares) and max(shares.values()) <= CALM_PERCENT
            return shares if calm and await self.history_s() >= BASELINE_S else None

        found = await _until(look, timeout_s)
        if found is None:
            message = (
                f"the estate was not calm within {timeout_s:.0f} s; see its log, or try again on a quieter machine"
            )
            raise Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, message)
        return found


async def _until(look: Callable[[], Awaitable[Shares | None]], timeout_s: float) -> Shares | None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            found = await look()
        except OncallError:
            found = None  # segments come and go while the estate is young
        if found is not None:
            return found
        await asyncio.sleep(_POLL_S)
    return None
