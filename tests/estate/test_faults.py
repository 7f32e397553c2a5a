"""Contract: faults are real, stay in their region, and yield only to the right remedy in the right order."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import asyncpg
import pytest

from tests.estate.running import RunningEstate, eventually

REGION = "us-west-2"


async def _kill(estate: RunningEstate, database: str) -> int:
    """What an on-call engineer would do: terminate the service's long-running backends."""
    login = estate.item("prod-db-rwaccess")[REGION]
    host, port = login["server"].split(":")
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        host=host,
        port=int(port),
        user=login["username"],
        password=login["password"],
        database="postgres",
        ssl=False,
    )
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = $1 AND state = 'active' AND pid <> pg_backend_pid()",
                database,
            )
        )
    finally:
        await connection.close()


def _switch_off(estate: RunningEstate, flag: str) -> None:
    """Turns a flag off and waits until the service obeys."""
    with estate.flags() as flags:
        url = f"/api/admin/flags/{flag}?region={REGION}"
        current = flags.get(url).json()
        body = {
            "enabled": False,
            "expected_version": current["version"],
            "idempotency_key": f"test-{time.time_ns()}",
            "updated_by": "test",
        }
        assert flags.put(url, json=body).status_code == 200

        def obeyed() -> bool:
            state: dict[str, Any] = flags.get(url).json()
            clients = state["clients"]
            return bool(clients) and all(c["version"] == state["version"] for c in clients)

        assert eventually(obeyed, 5, 0.02)


def _failing(estate: RunningEstate, since: float, service: str = "api-gateway") -> bool:
    failed, _ = estate.errors(since, service).get(REGION, (0, 0))
    return failed >= 3


async def test_cascade_needs_the_flag_off_before_the_kill(estate: RunningEstate) -> None:
    quiet = time.time()
    fault = estate.inject("cascading_failure", 7, region=REGION, service="inventory")
    truth = fault["expected"]
    assert (truth["region"], truth["service"], truth["specialist"]) == (REGION, "inventory", "database")
    try:
        assert eventually(lambda: _failing(estate, quiet), 12)
        assert eventually(lambda: estate.runaways(REGION) == 4, 10)
        [(first,)] = estate.query(
            f"SELECT min(epoch(ts)) FROM {{logs}} WHERE level = 'ERROR' AND epoch(ts) > {quiet}"
            f" AND region = '{REGION}' AND service = 'api-gateway'"
        )
        print(f"gateway failing {first - quiet:.1f} s after the fault")
        assert first - quiet < 6

        # Killing alone: the next requests run the same query again.
        assert await _kill(estate, "inventory") == 4
        assert eventually(lambda: estate.runaways(REGION) >= 2, 12), "did not relapse"

        # The flag alone: what runs keeps running.
        _switch_off(estate, truth["flag"])
        await asyncio.sleep(2)
        assert estate.runaways(REGION) == 4
        [mine] = [f for f in estate.admin.get("/faults").json() if f["fault_id"] == fault["fault_id"]]
        assert mine["active"] is True

        killed_at = time.time()
        assert await _kill(estate, "inventory") == 4
        recovered = estate.healthy_since(20, REGION, killed_at)
        print(f"healthy {recovered:.1f} s after the kill")
        # A starved machine fails requests everywhere; a relapse shows as runaways, and in this region only.
        evidence = f"load {os.getloadavg()[0]:.0f}, gateway failed/all by region {estate.errors(killed_at)}"
        assert estate.runaways(REGION) == 0, evidence
        assert recovered < 3, evidence
        [mine] = [f for f in estate.admin.get("/faults").json() if f["fault_id"] == fault["fault_id"]]
        assert mine["active"] is False
    finally:
        estate.heal(fault)
    others = estate.errors(quiet)
    assert others["us-east-1"][0] == others["eu-west-1"][0] == 0
    pool = estate.query(
        f"SELECT DISTINCT service FROM {{logs}} WHERE epoch(ts) > {quiet} AND message LIKE '%connection from pool%'"
    )
    assert pool == [("inventory",)]


def test_high_error_rate_ends_with_its_flag(estate: RunningEstate) -> None:
    started = time.time()
    fault = estate.inject("high_error_rate", 2, region=REGION, service="recommendation")
    try:
        assert fault["expected"]["specialist"] == "logs"
        assert eventually(lambda: _failing(estate, started, "recommendation"), 12)
        time.sleep(4)
        failed, total = estate.errors(started + 2, "recommendation")[REGION]
        assert failed / total >= 0.5
        exceptions = estate.query(
            f"SELECT DISTINCT service FROM {{logs}} WHERE epoch(ts) > {started} AND message LIKE '%AttributeError%'"
        )
        assert exceptions == [("recommendation",)]
        switched_at = time.time()
        _switch_off(estate, fault["expected"]["flag"])
        assert estate.healthy_since(15, REGION, switched_at) < 3
    finally:
        estate.heal(fault)


def test_healing_makes_healthy(estate: RunningEstate) -> None:
    started = time.time()
    fault = estate.inject("cascading_failure", 3, region=REGION, service="auth")
    assert eventually(lambda: _failing(estate, started), 12)
    healed_at = time.time()
    estate.heal(fault)
    assert estate.healthy_since(15, REGION, healed_at) < 4
    assert estate.runaways(REGION) == 0


def test_truth_is_told_only_when_asked(estate: RunningEstate) -> None:
    answer = estate.admin.post("/faults", json={"scenario": "false_alarm", "seed": 1})
    assert answer.status_code == 202
    fault = answer.json()
    assert set(fault) == {"fault_id", "scenario", "seed", "active", "injected_at"}
    [listed] = [f for f in estate.admin.get("/faults").json() if f["fault_id"] == fault["fault_id"]]
    assert listed["expected"] == {"region": None, "service": None, "specialist": None, "flag": None}
    assert listed["active"] is False
    estate.heal(fault)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scenario": "meteor", "seed": 1}, "scenario"),
        ({"seed": 1}, "scenario"),
        ({"scenario": "high_error_rate"}, "seed"),
        ({"scenario": "high_error_rate", "seed": "1"}, "seed"),
        ({"scenario": "high_error_rate", "seed": 1, "region": "mars"}, "region"),
        ({"scenario": "high_error_rate", "seed": 1, "service": "toaster"}, "service"),
    ],
)
def test_bad_faults_are_refused(estate: RunningEstate, body: dict[str, object], field: str) -> None:
    answer = estate.admin.post("/faults", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field


def test_unknown_scenario_names_the_known_ones(estate: RunningEstate) -> None:
    error = estate.admin.post("/faults", json={"scenario": "meteor", "seed": 1}).json()["error"]
    assert error["code"] == "unknown_scenario"
    assert "cascading_failure, high_error_rate, false_alarm" in error["message"]


def test_healing_an_unknown_fault_is_404(estate: RunningEstate) -> None:
    assert estate.admin.delete("/faults/fault-0").status_code == 404
    assert estate.admin.post("/faults", content=b"{").status_code == 400
