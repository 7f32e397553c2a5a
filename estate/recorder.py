"""The recorder: collects what the services emit and writes it as rolling Parquet segments.

A segment is named by its start (epoch milliseconds, even seconds), holds the rows of two seconds and appears by
rename shortly after its end. Rows that arrive later than the grace period (a span that lasted a minute carries
its start) go into the next segment to be written. Nothing is written for a kind that had no rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

SEGMENT_S = 2
# A question waits for an answer for half an hour, and then as long a past is compared with: 10 KB a second.
KEEP_S = 75 * 60
_GRACE_S = 0.6  # services flush every 0.25 s
_LINE_BYTES = 32 * 1024 * 1024

# Column name -> SQL type, as in format `recording/1`.
COLUMNS: dict[str, dict[str, str]] = {
    "metrics": {
        "ts": "TIMESTAMP",
        "region": "VARCHAR",
        "service": "VARCHAR",
        "metric": "VARCHAR",
        "value": "DOUBLE",
    },
    "logs": {
        "ts": "TIMESTAMP",
        "region": "VARCHAR",
        "service": "VARCHAR",
        "pod": "VARCHAR",
        "level": "VARCHAR",
        "message": "VARCHAR",
        "trace_id": "VARCHAR",
        "span_id": "VARCHAR",
    },
    "spans": {
        "ts": "TIMESTAMP",
        "region": "VARCHAR",
        "service": "VARCHAR",
        "operation": "VARCHAR",
        "trace_id": "VARCHAR",
        "span_id": "VARCHAR",
        "parent_span_id": "VARCHAR",
        "duration_us": "BIGINT",
    },
}
_DTYPES = {"TIMESTAMP": "datetime64[us]", "VARCHAR": "object", "DOUBLE": "float64", "BIGINT": "int64"}

Row = tuple[Any, ...]


class Recorder:
    """Rows waiting for their segment, by kind and segment number."""

    def __init__(self, telemetry: Path) -> None:
        self._telemetry = telemetry
        self._pending: dict[str, defaultdict[int, list[Row]]] = {kind: defaultdict(list) for kind in COLUMNS}
        self._written = int(time.time()) // SEGMENT_S - 1
        self._database = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB"})
        for kind in COLUMNS:
            directory = telemetry / kind
            directory.mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob(".*.tmp"):
                leftover.unlink()

    def accept(self, batch: dict[str, Any]) -> None:
        """Files one instance's batch; raises KeyError or ValueError on one that is malformed."""
        region, service, pod = batch["region"], batch["service"], batch["pod"]
        for ts, metric, value in batch["metrics"]:
            self._file("metrics", ts, (ts, region, service, metric, value))
        for ts, level, message, trace, span in batch["logs"]:
            self._file("logs", ts, (ts, region, service, pod, level, message, trace, span))
        for ts, operation, trace, span, parent, duration in batch["spans"]:
            self._file("spans", ts, (ts, region, service, operation, trace, span, parent, duration))

    def _file(self, kind: str, ts: int, row: Row) -> None:
        segment = max(ts // (SEGMENT_S * 1_000_000), self._written + 1)
        self._pending[kind][segment].append(row)

    def write_due(self, now: float) -> None:
        """Writes every segment whose grace period is over at `now`, and prunes old ones."""
        due = int((now - _GRACE_S) // SEGMENT_S) - 1
        if due <= self._written:
            return
        for kind, pending in self._pending.items():
            for segment in sorted(number for number in pending if number <= due):
                self._write(kind, segment, pending.pop(segment))
        self._written = due
        self._prune(now)

    def _write(self, kind: str, segment: int, rows: list[Row]) -> None:
        columns = COLUMNS[kind]
        rows.sort(key=lambda row: int(row[0]))
        batch = {
            name: np.array([row[index] for row in rows], dtype=_DTYPES[sql_type])
            for index, (name, sql_type) in enumerate(columns.items())
        }
        name = f"{segment * SEGMENT_S * 1000}.parquet"
        # A reader's glob for *.parquet would match a temporary name with that ending, leading dot or not.
        temporary = self._telemetry / kind / f".{name}.tmp"
        casts = ", ".join(f"{column}::{sql_type} AS {column}" for column, sql_type in columns.items())
        self._database.register("batch", batch)
        path = str(temporary).replace("'", "''")
        self._database.execute(f"COPY (SELECT {casts} FROM batch) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
        self._database.unregister("batch")
        temporary.rename(self._telemetry / kind / name)

    def _prune(self, now: float) -> None:
        oldest_ms = (now - KEEP_S) * 1000
        for kind in COLUMNS:
            for segment in (self._telemetry / kind).glob("*.parquet"):
                if segment.stem.isdigit() and int(segment.stem) < oldest_ms:
                    segment.unlink(missing_ok=True)


async def record(telemetry: Path, socket: Path) -> None:
    """Runs the recorder until it is killed."""
    recorder = Recorder(telemetry)

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                recorder.accept(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            print(f"recorder: dropped a connection: {error!r}", file=sys.stderr, flush=True)
        finally:
            writer.close()

    with contextlib.suppress(FileNotFoundError):
        socket.unlink()
    async with await asyncio.start_unix_server(read, str(socket), limit=_LINE_BYTES):
        while True:
            await asyncio.sleep(0.1)
            recorder.write_due(time.time())
