"""Contract: telemetry in the `recording/1` columns, readable while it is written, and quiet when all is well."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.estate.running import RunningEstate

_COLUMNS = {
    "metrics": [
        ("ts", "TIMESTAMP"),
        ("region", "VARCHAR"),
        ("service", "VARCHAR"),
        ("metric", "VARCHAR"),
        ("value", "DOUBLE"),
    ],
    "logs": [
        ("ts", "TIMESTAMP"),
        ("region", "VARCHAR"),
        ("service", "VARCHAR"),
        ("pod", "VARCHAR"),
        ("level", "VARCHAR"),
        ("message", "VARCHAR"),
        ("trace_id", "VARCHAR"),
        ("span_id", "VARCHAR"),
    ],
    "spans": [
        ("ts", "TIMESTAMP"),
        ("region", "VARCHAR"),
        ("service", "VARCHAR"),
        ("operation", "VARCHAR"),
        ("trace_id", "VARCHAR"),
        ("span_id", "VARCHAR"),
        ("parent_span_id", "VARCHAR"),
        ("duration_us", "BIGINT"),
    ],
}


@pytest.mark.parametrize("kind", list(_COLUMNS))
def test_columns_are_those_of_recordings(estate: RunningEstate, kind: str) -> None:
    described = estate.query(f"DESCRIBE SELECT * FROM {{{kind}}}")
    assert [(row[0], row[1]) for row in described] == _COLUMNS[kind]


def test_segments_hold_the_rows_their_name_says(estate: RunningEstate) -> None:
    rows = estate.query(
        "SELECT parse_filename(filename, true)::BIGINT AS start, min(epoch_ms(ts)), max(epoch_ms(ts))"
        f" FROM read_parquet('{estate.info['telemetry']}/metrics/*.parquet', filename = true) GROUP BY 1"
    )
    assert rows
    for start, first, last in rows:
        assert start % 2000 == 0
        assert last < start + 2000
        # What came too late for its own segment, on a machine that stalled, is in one that followed.
        assert start - 4000 <= first


def test_catalogue(estate: RunningEstate) -> None:
    catalogue = json.loads((Path(estate.info["telemetry"]) / "catalogue.json").read_text())
    assert catalogue["format"] == "recording/1"
    assert len(catalogue["regions"]) == 3
    assert len(catalogue["services"]) == 30
    assert {"region": "us-east-1", "caller": "order", "callee": "payment"} in catalogue["calls"]
    known = {(s["region"], s["service"]) for s in catalogue["services"]}
    assert all((c["region"], c["caller"]) in known for c in catalogue["calls"])


def test_normal_operation_is_quiet_and_complete(estate: RunningEstate) -> None:
    since = time.time()
    time.sleep(8)
    rows = estate.query(
        "SELECT region, service, count(DISTINCT metric), max(value) FILTER (metric = 'error_rate(%)')"
        f" FROM {{metrics}} WHERE epoch(ts) > {since} GROUP BY ALL"
    )
    assert len(rows) == 30
    for _, _, metrics, error_rate in rows:
        assert metrics >= 12
        assert error_rate == 0
    assert not estate.query(f"SELECT * FROM {{logs}} WHERE level <> 'INFO' AND epoch(ts) > {since + 1}")
    [(rate,)] = estate.query(
        "SELECT avg(value) FROM {metrics} WHERE metric = 'requests(1/s)' AND service = 'api-gateway'"
        f" AND epoch(ts) > {since + 2}"
    )
    assert 4 <= rate <= 6


def test_a_trace_covers_its_request(estate: RunningEstate) -> None:
    [(services, roots)] = estate.query(
        "SELECT list(DISTINCT service), count(*) FILTER (parent_span_id IS NULL) FROM {spans} WHERE trace_id = ("
        "SELECT trace_id FROM {spans} WHERE operation = 'POST /checkout' ORDER BY ts LIMIT 1)"
    )
    assert set(services) == {"api-gateway", "auth", "order", "inventory", "payment", "notification"}
    assert roots == 1
