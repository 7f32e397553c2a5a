"""Contract: an agent reports what its own subject and its service's symptoms show, names what it could not see, and
ends instead of guessing when its access is taken away."""

from datetime import timedelta

import pytest
from pydantic import SecretStr

from oncall.analyst.examine import examine
from oncall.config import References
from oncall.model.agent import Agent, Specialist
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.finding import Health
from oncall.telemetry.window import Window
from oncall.tools.toolkit import Toolkit
from tests.analyst.worlds import NOW, Memory, joined, lines, step, toolkit, window

BACK = ("north", "back")


def agent(specialist: Specialist, service: str = "back", region: str = "north") -> Agent:
    return Agent(specialist=specialist, service=service, region=region)


async def test_a_quiet_service_is_healthy_to_every_specialist() -> None:
    source = Memory(window(logs={}))
    for specialist in Specialist:
        finding = await examine(toolkit(source, agent(specialist)))
        assert finding.health is Health.HEALTHY, finding
        assert finding.observations
        assert not finding.blind


async def test_the_subjects_own_metrics_make_the_score_and_errors_make_the_symptom() -> None:
    sick = window(
        {
            ("north", "back", "pool_waiting(count)"): step(0, 30),
            ("north", "back", "error_rate(%)"): step(0, 80),
        }
    )
    database = await examine(toolkit(Memory(sick), agent(Specialist.DATABASE)))
    cache = await examine(toolkit(Memory(sick), agent(Specialist.CACHE)))
    assert database.health is Health.UNHEALTHY
    assert database.score > 12
    assert database.symptom > 12
    assert "pool_waiting(count)" in database.summary
    assert cache.score == 0
    assert cache.symptom == database.symptom


async def test_new_errors_count_as_the_services_own_only_where_no_callee_failed_in_the_same_trace() -> None:
    sick = window(
        {("north", service, "error_rate(%)"): step(0, 80) for service in ("middle", "back")},
        logs={
            ("north", "middle"): joined(lines(50, "ok", 110, "INFO"), lines(20, "it broke below", 9, traces="t")),
            BACK: joined(lines(50, "ok", 110, "INFO"), lines(20, "it broke here", 9, traces="t")),
        },
    )
    own = await examine(toolkit(Memory(sick), agent(Specialist.LOGS)))
    passed_on = await examine(toolkit(Memory(sick), agent(Specialist.LOGS, "middle")))
    assert own.score > 12
    assert passed_on.score == 0
    assert "it broke" not in own.summary


async def test_errors_that_stopped_are_no_evidence() -> None:
    past = joined(
        lines(100, "ok", 110, "INFO"),
        lines(30, "it broke here", 40),
    )
    over = past.times < NOW.timestamp() - 20
    kept = [column[over | (past.levels == "INFO")] for column in (past.times, past.levels, past.messages)]
    logs = type(past)(kept[0], kept[1], kept[2], kept[2], past.traces[over | (past.levels == "INFO")])
    finding = await examine(toolkit(Memory(window(logs={BACK: logs})), agent(Specialist.LOGS)))
    assert finding.health is Health.HEALTHY


async def test_a_failing_probe_is_named_and_telemetry_still_counts() -> None:
    sick = window({("north", "back", "pool_waiting(count)"): step(0, 30)})
    finding = await examine(toolkit(Memory(sick), agent(Specialist.DATABASE), live=True))
    assert finding.score > 12
    assert finding.blind == ("PostgreSQL in north, database back: not reachable",)
    assert "canary" not in finding.model_dump_json()


async def test_an_agent_that_saw_nothing_says_unknown() -> None:
    nothing = Window(start=NOW - timedelta(seconds=60), end=NOW, series={})
    for specialist in Specialist:
        finding = await examine(toolkit(Memory(nothing), agent(specialist), live=True))
        if specialist is Specialist.NETWORK:
            continue
        assert finding.health is Health.UNKNOWN, finding
        assert finding.blind
        assert (finding.score, finding.symptom) == (0, 0)


async def test_telemetry_that_ended_long_ago_is_not_called_healthy() -> None:
    source = Memory(window())
    late = Toolkit(
        agent(Specialist.CACHE), "u", NOW + timedelta(seconds=60), NOW, 120, source, None, References(), _Revoked(None)
    )
    finding = await examine(late)
    assert finding.health is Health.UNKNOWN
    assert any("telemetry ends 60 s before" in note for note in finding.blind)


async def test_without_a_past_before_the_alert_nothing_is_called_healthy() -> None:
    early = NOW - timedelta(seconds=115)
    kit = Toolkit(agent(Specialist.CACHE), "u", NOW, early, 120, Memory(window()), None, References(), _Revoked(None))
    finding = await examine(kit)
    assert finding.health is Health.UNKNOWN
    assert any("what is usual is unknown" in note for note in finding.blind)


class _Revoked:
    def __init__(self, code: ErrorCode | None) -> None:
        self._code = code

    async def reveal(self, reference: str) -> SecretStr:
        if self._code is not None:
            raise Terminal(self._code, f"{reference}: no")
        return SecretStr("127.0.0.1:1")


@pytest.mark.parametrize("code", [ErrorCode.GRANT_REVOKED, ErrorCode.GRANT_EXPIRED, ErrorCode.HALTED])
async def test_a_revoked_grant_ends_the_agent(code: ErrorCode) -> None:
    kit = Toolkit(agent(Specialist.DATABASE), "u", NOW, NOW, 120, Memory(window()), None, References(), _Revoked(code))
    with pytest.raises(Terminal) as ended:
        await examine(kit)
    assert ended.value.code is code


async def test_observations_are_repeatable_and_named_by_agent_tool_and_arguments() -> None:
    first = await examine(toolkit(Memory(window()), agent(Specialist.CACHE)))
    again = await examine(toolkit(Memory(window()), agent(Specialist.CACHE)))
    other = await examine(toolkit(Memory(window()), agent(Specialist.CACHE, "middle")))
    assert [(o.id, o.sha256) for o in first.observations] == [(o.id, o.sha256) for o in again.observations]
    assert not {o.id for o in first.observations} & {o.id for o in other.observations}
    assert all(o.reproducible and o.range_to == NOW for o in first.observations)
