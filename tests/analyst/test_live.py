"""Contract: on the real estate the whole roster names the right place, specialist and remedy for a database that runs
away and for code that fails, and nothing at all when nothing is wrong; probes refused by a real server say so."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from oncall.analyst.examine import examine
from oncall.analyst.recovery import recovery_checks, symptoms
from oncall.analyst.runaways import long_running
from oncall.analyst.synthesize import Analysis, synthesize
from oncall.config import References
from oncall.model.action import DisableFlag, KillQueries
from oncall.model.agent import Agent, Specialist
from oncall.model.coverage import Coverage
from oncall.model.diagnosis import Conclusion, RootCause
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.finding import Finding
from oncall.probes import instances, postgres, tcp, valkey
from oncall.telemetry.parquet import ParquetTelemetry
from oncall.tools.toolkit import Toolkit
from tests.analyst.worlds import roster
from tests.estate.running import RunningEstate, start_estate

pytestmark = pytest.mark.timeout(400)
_PAST_S = 24.0
# A fault shows within seconds; a machine that is busy with other tests takes longer to record it.
_PATIENCE_S = 90.0


class Vault:
    """The estate's read items, as the broker would reveal them."""

    def __init__(self, estate: RunningEstate) -> None:
        self._items = {
            title: estate.item(title) for title in ("prod-db-readonly", "cache-readonly", "k8s-prod-readonly")
        }

    async def reveal(self, reference: str) -> SecretStr:
        """The value of `op://Infrastructure/<item>[/<section>]/<field>`."""
        _, title, *section, field = reference.removeprefix("op://").split("/")
        return SecretStr(self._items[title][section[0] if section else ""][field])


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEstate]:
    running = start_estate(tmp_path_factory.mktemp("analyst-estate"), seed=5)
    time.sleep(_PAST_S)
    yield running
    running.stop()


async def wave(estate: RunningEstate, telemetry: ParquetTelemetry) -> tuple[list[Finding], Analysis, datetime]:
    """All 150 agents at once, and what their findings add up to."""
    as_of, vault = datetime.now(UTC), Vault(estate)
    topology = await telemetry.topology()

    def toolkit(agent: Agent) -> Toolkit:
        uri = f"spiffe://test/{agent.region}/incident/i/{agent.specialist.value}/{agent.service}/attempt/1"
        return Toolkit(agent, uri, as_of, as_of, 300, telemetry, estate.info["instances"], References(), vault)

    findings = await asyncio.gather(*(examine(toolkit(agent)) for agent in roster(topology)))
    coverage = Coverage(planned=len(findings), completed=len(findings))
    return findings, synthesize(findings, topology, coverage, 0.8), as_of


async def until(estate: RunningEstate, telemetry: ParquetTelemetry, remedies: int) -> tuple[Analysis, datetime, int]:
    """Waves until one names a root cause with as many remedies; also how many runaways its place showed."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        findings, result, as_of = await wave(estate, telemetry)
        root = result.diagnosis.root_cause
        if root is not None and len(result.actions) == remedies:
            return result, as_of, running_away(findings, root)
        assert time.monotonic() < deadline, result.diagnosis
        await asyncio.sleep(2)


def running_away(findings: list[Finding], root: RootCause) -> int:
    """The runaway executions that the agents of the root cause's place saw."""
    seen = [finding for finding in findings if (finding.region, finding.service) == (root.region, root.service)]
    return long_running(
        [each.value for finding in seen for each in finding.observations if each.tool == "query_slow_queries"]
    )


async def recovered(telemetry: ParquetTelemetry, root: RootCause, incident_at: datetime, runaways: int) -> None:
    """Waits until recovery is measured; fails after the patience is over."""
    topology = await telemetry.topology()
    before = await telemetry.window(datetime.fromtimestamp(incident_at.timestamp() - 300, UTC), incident_at)
    measured = symptoms(before, topology, root)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        now = datetime.now(UTC)
        after = await telemetry.window(datetime.fromtimestamp(now.timestamp() - 300, UTC), now)
        result = recovery_checks(measured, after, topology, root, runaways, 0)
        if result.recovered:
            assert result.improved
            return
        assert time.monotonic() < deadline, result
        await asyncio.sleep(2)


async def test_nothing_wrong_is_no_fault(estate: RunningEstate) -> None:
    estate.inject("false_alarm")
    telemetry = ParquetTelemetry(Path(estate.info["telemetry"]))
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        findings, result, _ = await wave(estate, telemetry)
        # Whatever a starved machine shows, nothing may be named or touched.
        assert not result.actions, result.diagnosis
        assert len(findings) == 150
        if result.diagnosis.conclusion is Conclusion.NO_FAULT:
            return
        assert time.monotonic() < deadline, result.diagnosis
        await asyncio.sleep(3)


async def test_runaway_statements_are_found_with_their_flag(estate: RunningEstate) -> None:
    telemetry = ParquetTelemetry(Path(estate.info["telemetry"]))
    fault = estate.inject("cascading_failure", seed=3)
    expected = fault["expected"]
    try:
        result, incident_at, runaways = await until(estate, telemetry, remedies=2)
    finally:
        estate.heal(fault)
    root = result.diagnosis.root_cause
    assert root is not None
    assert (root.region, root.service) == (expected["region"], expected["service"])
    assert root.specialist is Specialist.DATABASE
    flag, kill = (action.parameters for action in result.actions)
    assert isinstance(flag, DisableFlag)
    assert (flag.region, flag.flag) == (expected["region"], expected["flag"])
    assert isinstance(kill, KillQueries)
    assert kill.region == expected["region"]
    assert runaways >= 2
    await recovered(telemetry, root, incident_at, runaways)


async def test_failing_code_is_found_with_its_flag_only(estate: RunningEstate) -> None:
    telemetry = ParquetTelemetry(Path(estate.info["telemetry"]))
    fault = estate.inject("high_error_rate", seed=4)
    expected = fault["expected"]
    try:
        result, incident_at, runaways = await until(estate, telemetry, remedies=1)
    finally:
        estate.heal(fault)
    root = result.diagnosis.root_cause
    assert root is not None
    assert (root.region, root.service) == (expected["region"], expected["service"])
    assert root.specialist is Specialist.LOGS
    [action] = result.actions
    assert isinstance(action.parameters, DisableFlag)
    assert (action.parameters.region, action.parameters.flag) == (expected["region"], expected["flag"])
    await recovered(telemetry, root, incident_at, runaways)


async def test_real_servers_answer_and_refuse(estate: RunningEstate) -> None:
    region, wrong = "us-east-1", SecretStr("canary-wrong")
    database = estate.item("prod-db-readonly")[region]
    cache = estate.item("cache-readonly")[region]
    registry = SecretStr(estate.item("k8s-prod-readonly")[""]["credential"])
    url = estate.info["instances"]

    activity = await postgres.look(
        region, database["server"], database["username"], SecretStr(database["password"]), "order"
    )
    assert activity.database == "order"
    assert sum(state.count for state in activity.connections) >= 1
    assert activity.statements
    state = await valkey.look(region, cache["server"], cache["username"], SecretStr(cache["password"]))
    assert state.max_memory_bytes > state.used_memory_bytes > 0
    [instance] = await instances.running(url, registry, region, "order")
    assert instance.status == "running"
    assert instance.flags
    assert (await tcp.connects(instance.address)).failed == 0

    for refused in (
        postgres.look(region, database["server"], database["username"], wrong, "order"),
        postgres.look(region, database["server"], database["username"], SecretStr(database["password"]), "nowhere"),
        valkey.look(region, cache["server"], cache["username"], wrong),
        instances.running(url, wrong, region, "order"),
        instances.running(url, registry, region, "nowhere"),
    ):
        with pytest.raises(Terminal) as failed:
            await refused
        assert failed.value.code is ErrorCode.PROBE_FAILED
        assert "canary" not in str(failed.value)
