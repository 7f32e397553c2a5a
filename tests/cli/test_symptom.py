"""Contract: the demo begins on a calm estate, which is one with a past and without failures at its entrances."""

import json
import time
from pathlib import Path

import duckdb
import pytest

from oncall.cli.symptom import Entrances
from oncall.model.errors import ErrorCode, Retryable

CATALOGUE = {
    "format": "recording/1",
    "regions": ["r1", "r2"],
    "services": [{"region": region, "service": name} for region in ("r1", "r2") for name in ("gateway", "order")],
    "calls": [{"region": region, "caller": "gateway", "callee": "order"} for region in ("r1", "r2")],
}


def _telemetry(root: Path, errors: float, history_s: int = 40, error_s: int = 40) -> Path:
    """Two-second segments, 5 requests/s at each gateway, of which r2's fail from `error_s` ago on.

    They reach a minute into the future, so that a slow machine still finds recent ones.
    """
    (root / "metrics").mkdir(parents=True)
    (root / "catalogue.json").write_text(json.dumps(CATALOGUE))
    now = int(time.time()) // 2 * 2
    for start in range(now - history_s, now + 60, 2):
        rows = []
        for region in ("r1", "r2"):
            failed = errors if region == "r2" and start >= now - error_s else 0.0
            rows += [(region, "gateway", "requests(1/s)", 5.0), (region, "gateway", "errors(1/s)", failed)]
            # Not an entrance: users do not see it directly.
            rows += [(region, "order", "requests(1/s)", 5.0), (region, "order", "errors(1/s)", 5.0)]
        values = ", ".join(
            f"(make_timestamp({(start + 1) * 1_000_000}), '{r}', '{s}', '{m}', {v})" for r, s, m, v in rows
        )
        target = root / "metrics" / f"{start * 1000}.parquet"
        duckdb.sql(f"COPY (SELECT * FROM (VALUES {values}) t(ts, region, service, metric, value)) TO '{target}'")
    return root


async def test_shares_are_of_the_entrances_only(tmp_path: Path) -> None:
    shares = await Entrances(_telemetry(tmp_path, errors=2.0)).shares(20)
    assert shares == {("r1", "gateway"): 0.0, ("r2", "gateway"): 40.0}


async def test_calm_needs_history_and_quiet(tmp_path: Path) -> None:
    assert max((await Entrances(_telemetry(tmp_path / "calm", 0.0)).calm(5)).values()) == 0.0
    for folder in (_telemetry(tmp_path / "young", 0.0, history_s=10), _telemetry(tmp_path / "loud", 2.0)):
        with pytest.raises(Retryable) as failed:
            await Entrances(folder).calm(1.5)
        assert failed.value.code is ErrorCode.TELEMETRY_UNAVAILABLE
