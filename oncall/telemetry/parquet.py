"""Telemetry in Parquet files, live segments or a recording, read with a locked-down DuckDB.

Log lines and names in the files are hostile until shown otherwise: DuckDB sees the telemetry folder only, cannot
load extensions or reach the network, and its configuration is locked before the first file is opened
(https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview).
"""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.topology import Topology
from oncall.telemetry.catalogue import read_catalogue
from oncall.telemetry.segments import KINDS, choose
from oncall.telemetry.single_flight import SingleFlight
from oncall.telemetry.window import Floats, LogLines, Place, Series, Spans, Strings, Window

MAX_ROWS = {"metrics": 1_000_000, "logs": 60_000, "spans": 120_000}
MESSAGE_CHARS = 400
_CACHED_WINDOWS = 4
# Ids and numbers of a message, masked to make its template; tried at every line, so kept to two alternatives.
_VOLATILE = r"[0-9a-fA-F]*[0-9][0-9a-fA-F]*(?:[-.:][0-9a-fA-F]+)*"


class ParquetTelemetry:
    """A `Telemetry` over one folder: `<kind>.parquet` of a recording, or `<kind>/<epoch ms>.parquet` segments."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._windows: SingleFlight[tuple[datetime, datetime], Window] = SingleFlight(_CACHED_WINDOWS)
        # Apart: looks that come every few seconds must not push out the window that a wave of agents shares.
        self._metrics: SingleFlight[tuple[datetime, datetime], Window] = SingleFlight(1)
        self._topologies: SingleFlight[tuple[int, int], Topology] = SingleFlight(1)

    async def topology(self) -> Topology:
        """The folder's `catalogue.json`, read again when it changed.

        Raises Retryable(TELEMETRY_UNAVAILABLE) while it cannot be read, and Terminal for one that is wrong.
        """
        path = self._root / "catalogue.json"
        try:
            status = path.stat()
        except OSError as error:
            raise Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, f"{path}: {error.strerror}") from None
        key = (status.st_mtime_ns, status.st_size)
        return await self._topologies.get(key, lambda: asyncio.to_thread(read_catalogue, path))

    async def window(self, start: datetime, end: datetime) -> Window:
        """All rows of the range, bounded by MAX_ROWS per kind (the newest are kept).

        Raises Terminal(TELEMETRY_UNAVAILABLE) when the folder or a file is unreadable, Retryable when segments
        vanished twice while they were read.
        """
        return await self._windows.get((start, end), lambda: asyncio.to_thread(self._read, start, end, KINDS))

    async def metrics(self, start: datetime, end: datetime) -> Window:
        """The same without logs and spans, and as if the source kept none."""
        return await self._metrics.get((start, end), lambda: asyncio.to_thread(self._read, start, end, ("metrics",)))

    def _read(self, start: datetime, end: datetime, kinds: Collection[str]) -> Window:
        for attempt in (1, 2):
            try:
                files = choose(self._root, start, end, kinds)
            except OSError as error:
                raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, f"{self._root}: {error.strerror}") from None
            try:
                return _load(self._root, files.by_kind, start, files.end)
            except duckdb.Error:
                gone = any(not path.exists() for paths in files.by_kind.values() for path in paths)
                if not gone:
                    raise Terminal(
                        ErrorCode.TELEMETRY_UNAVAILABLE, f"{self._root}: a telemetry file cannot be read"
                    ) from None
                # The recorder prunes its oldest segments while we read: the next listing lacks them.
                if attempt == 2:
                    break
        raise Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, f"{self._root}: segments vanish while they are read", 1.0)


def _connect(root: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "512MB"})
    connection.execute("SET allowed_directories = [?]", [f"{root}/"])
    for setting in ("enable_external_access = false", "TimeZone = 'UTC'", "lock_configuration = true"):
        connection.execute(f"SET {setting}")
    return connection


def _load(root: Path, by_kind: dict[str, tuple[Path, ...]], start: datetime, end: datetime) -> Window:
    truncated: list[str] = []
    with _connect(root) as connection:

        def view(kind: str, columns: str) -> bool:
            paths = [str(path) for path in by_kind.get(kind, ())]
            if not paths:
                return False
            connection.execute(
                f"CREATE TEMP TABLE {kind} AS SELECT epoch_us(ts) AS us, {columns} FROM read_parquet(?)"  # noqa: S608
                " WHERE ts >= ? AND ts <= ?",
                [paths, _naive(start), _naive(end)],
            )
            counted = connection.execute(f"SELECT count(*) FROM {kind}").fetchone()  # noqa: S608
            rows, limit = (counted[0] if counted else 0), MAX_ROWS[kind]
            if rows > limit:
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE {kind} AS SELECT * FROM {kind} ORDER BY us DESC LIMIT {limit}"  # noqa: S608
                )
                truncated.append(f"{kind}: the newest {limit} of {rows} rows")
            return True

        series = _series(connection) if view("metrics", "region, service, metric, value") else {}
        logs = (
            _logs(connection)
            if view(
                "logs",
                "region, service, upper(coalesce(level, '')) AS level,"
                f" left(coalesce(message, ''), {MESSAGE_CHARS}) AS message, coalesce(trace_id, '') AS trace",
            )
            else {}
        )
        spans = (
            _spans(connection)
            if view("spans", "region, service, operation, trace_id, span_id, parent_span_id, duration_us")
            else {}
        )
    return Window(
        start=start,
        end=end,
        series=series,
        log_lines=logs,
        span_rows=spans,
        has_logs="logs" in by_kind,
        has_spans="spans" in by_kind,
        truncated=tuple(truncated),
    )


def _naive(moment: datetime) -> datetime:
    # The files' timestamps have no zone and mean UTC.
    return moment.astimezone(UTC).replace(tzinfo=None)


def _columns(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, np.ndarray]:
    return {
        name: np.ma.getdata(column) if isinstance(column, np.ma.MaskedArray) else column
        for name, column in connection.execute(sql).fetchnumpy().items()
    }


def _seconds(us: np.ndarray) -> Floats:
    return us.astype(np.float64) / 1e6


def _series(connection: duckdb.DuckDBPyConnection) -> dict[Place, dict[str, Series]]:
    # Numbered once, so that the rows are sorted by a number instead of by three names: a third of the time.
    connection.execute(
        "CREATE TEMP TABLE names AS SELECT *, row_number() OVER (ORDER BY region, service, metric) AS id"
        " FROM (SELECT region, service, metric, count(*) AS readings FROM metrics WHERE isfinite(value)"
        " AND region IS NOT NULL AND service IS NOT NULL AND metric IS NOT NULL GROUP BY ALL)"
    )
    groups = connection.execute("SELECT region, service, metric, readings FROM names ORDER BY id").fetchall()
    rows = _columns(
        connection,
        "SELECT us, value FROM metrics JOIN names USING (region, service, metric) WHERE isfinite(value)"
        " ORDER BY id, us",
    )
    times, values = _seconds(rows["us"]), rows["value"].astype(np.float64)
    found: dict[Place, dict[str, Series]] = {}
    first = 0
    for region, service, metric, count in groups:
        last = first + count
        found.setdefault((region, service), {})[metric] = Series(times[first:last], values[first:last])
        first = last
    return found


def _bounds(connection: duckdb.DuckDBPyConnection, kind: str) -> list[tuple[Place, slice]]:
    groups = connection.execute(
        f"SELECT region, service, count(*) FROM {kind} GROUP BY ALL ORDER BY ALL"  # noqa: S608
    ).fetchall()
    bounds: list[tuple[Place, slice]] = []
    first = 0
    for region, service, count in groups:
        bounds.append(((region, service), slice(first, first + count)))
        first += count
    return bounds


def _logs(connection: duckdb.DuckDBPyConnection) -> dict[Place, LogLines]:
    # Distinct messages are few compared with lines: masking them once each is what keeps a log flood cheap.
    connection.execute(
        "CREATE TEMP TABLE templates AS SELECT message, regexp_replace(message, ?, '#', 'g') AS template"
        " FROM (SELECT DISTINCT message FROM logs)",
        [_VOLATILE],
    )
    rows = _columns(
        connection,
        "SELECT us, level, message, template, trace FROM logs JOIN templates USING (message)"
        " ORDER BY region, service, us, message, trace",
    )
    times = _seconds(rows["us"])
    columns: list[Strings] = [rows[name].astype(object) for name in ("level", "message", "template", "trace")]
    return {
        place: LogLines(times[part], *(column[part] for column in columns))
        for place, part in _bounds(connection, "logs")
    }


def _spans(connection: duckdb.DuckDBPyConnection) -> dict[Place, Spans]:
    rows = _columns(
        connection,
        # One parent per span id: a duplicated id in the source must not multiply the rows.
        "WITH parents AS (SELECT trace_id, span_id, any_value(service) AS service FROM spans GROUP BY ALL)"
        " SELECT s.us, s.duration_us, coalesce(s.operation, '') AS operation, coalesce(p.service, '') AS caller"
        " FROM spans s LEFT JOIN parents p ON p.trace_id = s.trace_id AND p.span_id = s.parent_span_id"
        " ORDER BY s.region, s.service, s.us, s.span_id",
    )
    times, durations = _seconds(rows["us"]), rows["duration_us"].astype(np.float64) / 1000.0
    operations, callers = rows["operation"].astype(object), rows["caller"].astype(object)
    return {
        place: Spans(times[part], durations[part], operations[part], callers[part])
        for place, part in _bounds(connection, "spans")
    }
