"""Contract: a folder of segments and a recording read alike, locked down, once per range however many ask, up to the
time that is complete; hostile or broken files are one clear error."""

import asyncio
import json
import math
import os
import shutil
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.telemetry import parquet
from oncall.telemetry.parquet import ParquetTelemetry
from oncall.telemetry.segments import Files, choose, milliseconds
from oncall.telemetry.window import Window

START = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
METRICS = "ts TIMESTAMP, region VARCHAR, service VARCHAR, metric VARCHAR, value DOUBLE"
LOGS = (
    "ts TIMESTAMP, region VARCHAR, service VARCHAR, pod VARCHAR, level VARCHAR, message VARCHAR, trace_id VARCHAR,"
    " span_id VARCHAR"
)
SPANS = (
    "ts TIMESTAMP, region VARCHAR, service VARCHAR, operation VARCHAR, trace_id VARCHAR, span_id VARCHAR,"
    " parent_span_id VARCHAR, duration_us BIGINT"
)


def write(path: Path, columns: str, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(":memory:") as database:
        database.execute(f"CREATE TABLE t ({columns})")
        if rows:
            database.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(rows[0]))})", rows)
        database.execute(f"COPY t TO '{path}' (FORMAT parquet)")
    # As old as what it holds: a segment that was written this moment may lack its siblings and is left out.
    os.utime(path, (START.timestamp(), START.timestamp()))


def naive(seconds: float) -> datetime:
    return (START + timedelta(seconds=seconds)).replace(tzinfo=None)


def segment(root: Path, kind: str, seconds: int) -> Path:
    return root / kind / f"{milliseconds(START + timedelta(seconds=seconds))}.parquet"


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segments")
    for second in range(0, 20, 2):
        write(segment(root, "metrics", second), METRICS, [(naive(second + 1), "r", "a", "m", float(second))])
    return root / "metrics"


@pytest.fixture
def live(tmp_path: Path, segments: Path) -> Path:
    catalogue = {
        "format": "recording/1",
        "regions": ["r"],
        "services": [{"region": "r", "service": "a"}],
        "calls": [],
        "more": 1,
    }
    (tmp_path / "catalogue.json").write_text(json.dumps(catalogue))
    shutil.copytree(segments, tmp_path / "metrics")
    return tmp_path


async def read(root: Path, seconds: float) -> Window:
    return await ParquetTelemetry(root).window(START, START + timedelta(seconds=seconds))


async def test_segments_are_read_up_to_where_they_are_complete(live: Path) -> None:
    window = await read(live, 11)
    # The segment that starts at 10 ends at 12, after the end that was asked for.
    assert window.end == START + timedelta(seconds=10)
    assert list(window.metrics("r", "a")["m"].values) == [0.0, 2.0, 4.0, 6.0, 8.0]
    beyond = await read(live, 60)
    assert beyond.end <= START + timedelta(seconds=20)
    again = await ParquetTelemetry(live).window(START, beyond.end)
    assert list(again.metrics("r", "a")["m"].values) == list(beyond.metrics("r", "a")["m"].values)


async def test_segments_outside_the_range_are_not_opened(live: Path) -> None:
    segment(live, "metrics", -600).write_bytes(b"not parquet")
    segment(live, "metrics", 600).write_bytes(b"not parquet")
    assert len((await read(live, 11)).metrics("r", "a")["m"]) == 5


async def test_a_segment_written_this_moment_waits_for_its_siblings(live: Path) -> None:
    newest = segment(live, "metrics", 18)
    os.utime(newest)
    assert (await read(live, 60)).end == START + timedelta(seconds=18)
    os.utime(newest, (0, 0))
    assert (await read(live, 60)).end == START + timedelta(seconds=20)


async def test_a_recording_reads_the_same(live: Path, tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(naive(second + 1), "r", "a", "m", float(second)) for second in range(0, 10, 2)]
    write(tmp_path / "recording" / "metrics.parquet", METRICS, rows)
    recorded = (await read(tmp_path / "recording", 10)).metrics("r", "a")["m"]
    lived = (await read(live, 10)).metrics("r", "a")["m"]
    assert list(recorded.times) == list(lived.times)
    assert list(recorded.values) == list(lived.values)


async def test_one_read_serves_all_who_ask_at_once(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    load = parquet._load

    def counted(*arguments: Any) -> Window:
        loads.append(1)
        return load(*arguments)

    monkeypatch.setattr(parquet, "_load", counted)
    telemetry = ParquetTelemetry(live)
    windows = await asyncio.gather(*(telemetry.window(START, START + timedelta(seconds=9)) for _ in range(150)))
    assert len(loads) == 1
    assert all(window is windows[0] for window in windows)


async def test_a_cancelled_reader_does_not_cancel_the_others(live: Path) -> None:
    telemetry = ParquetTelemetry(live)
    first, second = (asyncio.create_task(telemetry.window(START, START + timedelta(seconds=9))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert len((await second).metrics("r", "a")["m"]) == 4
    assert first.cancelled()


async def test_a_segment_that_vanishes_is_read_around_once(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = iter([segment(live, "metrics", 0), None, segment(live, "metrics", 2), segment(live, "metrics", 4)])

    def vanishing(root: Path, start: datetime, end: datetime, kinds: Collection[str]) -> Files:
        chosen = choose(root, start, end, kinds)
        if path := next(doomed):
            path.unlink()
        return chosen

    monkeypatch.setattr(parquet, "choose", vanishing)
    assert len((await read(live, 11)).metrics("r", "a")["m"]) == 4
    with pytest.raises(Retryable) as failed:
        await read(live, 11)
    assert failed.value.code is ErrorCode.TELEMETRY_UNAVAILABLE


async def test_a_broken_or_missing_source_is_one_clear_line(live: Path, tmp_path: Path) -> None:
    segment(live, "metrics", 4).write_bytes(b"not parquet")
    for root in (live, tmp_path / "nowhere"):
        with pytest.raises(Terminal) as failed:
            await read(root, 11)
        assert failed.value.code is ErrorCode.TELEMETRY_UNAVAILABLE
        assert str(root) in failed.value.message
        assert "\n" not in failed.value.message
    # A volume that is away for a moment must not cost an incident its approval.
    with pytest.raises(Retryable):
        await ParquetTelemetry(tmp_path / "nowhere").topology()


async def test_duckdb_cannot_leave_the_folder(live: Path) -> None:
    with parquet._connect(live) as connection:
        for statement in (
            "SELECT * FROM read_text('/etc/passwd')",
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
            "COPY (SELECT 1) TO '/tmp/oncall-escape.csv'",
            "INSTALL httpfs",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)


async def test_logs_are_clipped_masked_and_bounded(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[object, ...]] = [
        (
            naive(index / 10),
            "r",
            "a",
            "p",
            "error",
            f"took {index} ms in 1a2b3c4d5e: " + "word " * 200,
            f"t{index}",
            None,
        )
        for index in range(19)
    ]
    write(segment(live, "logs", 0), LOGS, rows)
    logs = (await read(live, 11)).logs("r", "a")
    assert set(logs.levels) == {"ERROR"}
    assert {str(template)[:20] for template in logs.templates} == {"took # ms in #: word"}
    assert max(len(message) for message in logs.messages) == parquet.MESSAGE_CHARS
    monkeypatch.setitem(parquet.MAX_ROWS, "logs", 5)
    bounded = await read(live, 11)
    assert [str(trace) for trace in bounded.logs("r", "a").traces] == [f"t{index}" for index in range(14, 19)]
    assert bounded.truncated == ("logs: the newest 5 of 19 rows",)


async def test_spans_know_who_called(live: Path) -> None:
    rows: list[tuple[object, ...]] = [
        (naive(1), "r", "front", "GET /", "t", "s1", None, 5000),
        (naive(1), "r", "a", "GET /x", "t", "s2", "s1", 3000),
        (naive(1), "r", "a", "GET /x", "t", "s3", "unknown", 2000),
    ]
    write(segment(live, "spans", 0), SPANS, rows)
    window = await read(live, 11)
    assert list(window.spans("r", "a").callers) == ["front", ""]
    assert list(window.spans("r", "a").durations_ms) == [3.0, 2.0]
    assert list(window.spans("r", "front").callers) == [""]


async def test_readings_without_a_name_or_a_number_are_left_out(live: Path) -> None:
    rows: list[tuple[object, ...]] = [(naive(1), "r", "b", "n", value) for value in (math.nan, math.inf, None)]
    rows += [(naive(1), None, "b", "n", 1.0), (naive(1), "r", None, "n", 1.0), (naive(1), "r", "b", None, 1.0)]
    rows += [(naive(second), "r", "b", name, float(second)) for name in "no" for second in (3, 2)]
    write(segment(live, "metrics", 0), METRICS, rows)
    window = await read(live, 5)
    assert {metric: list(series.values) for metric, series in window.metrics("r", "b").items()} == {
        "n": [2.0, 3.0],
        "o": [2.0, 3.0],
    }
    assert set(window.series) == {("r", "a"), ("r", "b")}


async def test_metrics_alone_are_the_same_metrics_without_opening_anything_else(live: Path) -> None:
    whole = await read(live, 11)
    for kind in ("logs", "spans"):
        segment(live, kind, 0).parent.mkdir()
        segment(live, kind, 0).write_bytes(b"not parquet")
    alone = await ParquetTelemetry(live).metrics(START, START + timedelta(seconds=11))
    assert list(alone.metrics("r", "a")["m"].values) == list(whole.metrics("r", "a")["m"].values)
    assert alone.end == whole.end
    assert (alone.has_logs, alone.has_spans) == (False, False)
    with pytest.raises(Terminal):
        await read(live, 11)


async def test_an_empty_window_has_nothing_and_says_nothing_wrong(live: Path) -> None:
    window = await ParquetTelemetry(live).window(START - timedelta(hours=2), START - timedelta(hours=1))
    assert not window.metrics("r", "a")
    assert len(window.logs("r", "a")) == 0
    assert len(window.spans("r", "a")) == 0


async def test_the_catalogue_is_read_again_when_it_changed(live: Path) -> None:
    telemetry = ParquetTelemetry(live)
    assert (await telemetry.topology()).regions == ("r",)
    catalogue = json.loads((live / "catalogue.json").read_text()) | {"regions": ["r", "other"]}
    (live / "catalogue.json").write_text(json.dumps(catalogue))
    assert (await telemetry.topology()).regions == ("r", "other")
    (live / "catalogue.json").write_text("[]")
    with pytest.raises(Terminal):
        await telemetry.topology()
