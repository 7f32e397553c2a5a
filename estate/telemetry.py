"""What a service says about itself: metrics of two-second windows, log lines and spans, sent to the recorder.

Sending never blocks or fails a request: what cannot be delivered within the buffer is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import defaultdict
from pathlib import Path

TICK_S = 2.0
FLUSH_S = 0.25
_BUFFERED_ROWS = 20_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


def now_us() -> int:
    """The time in microseconds since the epoch."""
    return time.time_ns() // 1000


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile of a non-empty list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _next_end(now: float) -> float:
    return (now + 1.0) // TICK_S * TICK_S + 1.0


class Window:
    """What happened since the last tick; `rows` turns it into metrics.

    A metric without a value (the latency of no requests) has no row.
    """

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.pool_timeouts = 0
        self.pool_in_use = 0
        self.pool_waiting = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self.db_latencies: list[float] = []
        self.client_latencies: defaultdict[str, list[float]] = defaultdict(list)
        self.client_errors: defaultdict[str, int] = defaultdict(int)

    def rows(self, seconds: float, callees: tuple[str, ...]) -> dict[str, float]:
        """Metric values by name, for a window that lasted `seconds`."""
        requests = len(self.latencies)
        values: dict[str, float] = {
            "requests(1/s)": requests / seconds,
            "errors(1/s)": self.errors / seconds,
            "pool_in_use(count)": self.pool_in_use,
            "pool_waiting(count)": self.pool_waiting,
            "pool_timeouts(1/s)": self.pool_timeouts / seconds,
        }
        if requests:
            values["error_rate(%)"] = 100 * self.errors / requests
            values["latency_p50(ms)"] = 1000 * percentile(self.latencies, 0.5)
            values["latency_p95(ms)"] = 1000 * percentile(self.latencies, 0.95)
        if self.db_latencies:
            values["db_latency_p95(ms)"] = 1000 * percentile(self.db_latencies, 0.95)
        lookups = self.cache_hits + self.cache_misses
        if lookups:
            values["cache_hit_rate(%)"] = 100 * self.cache_hits / lookups
        for callee in callees:
            values[f"client_errors(1/s):{callee}"] = self.client_errors[callee] / seconds
            if latencies := self.client_latencies[callee]:
                values[f"client_latency_p50(ms):{callee}"] = 1000 * percentile(latencies, 0.5)
        return values


class Emitter:
    """One instance's connection to the recorder."""

    def __init__(self, recorder: Path, region: str, service: str, pod: str, callees: tuple[str, ...]) -> None:
        self._recorder = recorder
        self._header = {"region": region, "service": service, "pod": pod}
        self._callees = callees
        self._metrics: list[tuple[int, str, float]] = []
        self._logs: list[tuple[int, str, str, str | None, str | None]] = []
        self._spans: list[tuple[int, str, str, str, str | None, int]] = []
        self._cpu = 0.0
        self.window = Window()
        self.waiting = 0
        self.in_use = 0

    def log(self, level: str, message: str, trace: str | None = None, span: str | None = None) -> None:
        """Writes one log line."""
        if len(self._logs) < _BUFFERED_ROWS:
            self._logs.append((now_us(), level, message, trace, span))

    def span(
        self, started_us: int, operation: str, trace: str, span: str, parent: str | None, duration_us: int
    ) -> None:
        """Records one finished server span."""
        if len(self._spans) < _BUFFERED_ROWS:
            self._spans.append((started_us, operation, trace, span, parent, duration_us))

    def pool_changed(self, waiting: int = 0, in_use: int = 0) -> None:
        """Counts requests that wait for, or hold, a connection; the window keeps the highest."""
        self.waiting += waiting
        self.in_use += in_use
        self.window.pool_waiting = max(self.window.pool_waiting, self.waiting)
        self.window.pool_in_use = max(self.window.pool_in_use, self.in_use)

    async def run(self) -> None:
        """Ticks and flushes until cancelled, reconnecting when the recorder was restarted."""
        self._cpu = time.process_time()
        writer: asyncio.StreamWriter | None = None
        # Windows end at odd seconds and segments at even ones, so that a window's row never races for a segment.
        ends, began = _next_end(time.time()), time.monotonic()
        while True:
            await asyncio.sleep(FLUSH_S)
            if time.time() >= ends:
                # The first window is shorter than the others, and one in a stall longer.
                now = time.monotonic()
                self._tick(int(ends * 1e6), now - began)
                ends, began = _next_end(time.time()), now
            try:
                if writer is None or writer.is_closing():
                    _, writer = await asyncio.open_unix_connection(str(self._recorder))
                self._flush(writer)
                await writer.drain()
            except OSError:
                writer = None

    def _tick(self, ts: int, seconds: float) -> None:
        cpu = time.process_time()
        values = self.window.rows(seconds, self._callees)
        values["cpu(%)"] = 100 * (cpu - self._cpu) / seconds
        with contextlib.suppress(OSError):
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            values["memory(MB)"] = resident * _PAGE / 1e6
        self._cpu = cpu
        self.window = Window()
        self.pool_changed()
        if len(self._metrics) < _BUFFERED_ROWS:
            self._metrics.extend((ts, name, float(value)) for name, value in values.items())

    def _flush(self, writer: asyncio.StreamWriter) -> None:
        if not (self._metrics or self._logs or self._spans):
            return
        batch = {**self._header, "metrics": self._metrics, "logs": self._logs, "spans": self._spans}
        writer.write(json.dumps(batch, separators=(",", ":")).encode() + b"\n")
        self._metrics, self._logs, self._spans = [], [], []
