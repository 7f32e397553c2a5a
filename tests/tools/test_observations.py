"""Contract: observations are exact JSON with a digest anyone can recompute, and say what a bound cut; over a recording
no credential is ever asked for."""

import hashlib

import pytest

from oncall.config import References
from oncall.model.agent import Agent, Specialist
from oncall.telemetry.vocabulary import Aspect
from oncall.tools.cache import check_cache_health, get_eviction_stats
from oncall.tools.database import query_db_connections, query_slow_queries
from oncall.tools.logs import get_application_logs, search_errors
from oncall.tools.metrics import MAX_METRICS, query_metrics
from oncall.tools.network import check_network_latency, trace_route
from oncall.tools.resources import check_instance_health
from oncall.tools.toolkit import RECORDING_LOOKBACK_S, Toolkit, tidy
from oncall.trust.canonical import canonical
from tests.analyst.worlds import NOW, Memory, joined, lines, step, toolkit, window

TOOLS = [
    query_db_connections,
    query_slow_queries,
    check_cache_health,
    get_eviction_stats,
    check_network_latency,
    trace_route,
    check_instance_health,
    get_application_logs,
    search_errors,
]
BACK = Agent(specialist=Specialist.DATABASE, service="back", region="north")
LOGS = {("north", "back"): joined(lines(40, "ok", 110, "INFO"), lines(20, "it broke", 9))}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
async def test_every_tool_reads_a_recording_without_credentials(tool: object) -> None:
    assert callable(tool)
    observation = await tool(toolkit(Memory(window(logs=LOGS)), BACK))
    assert observation.reproducible
    assert (observation.range_to, observation.arguments["service"]) == (NOW, "back")
    assert observation.sha256 == hashlib.sha256(canonical(observation.value)).hexdigest()
    assert observation.id.startswith("obs-")


async def test_a_recording_is_read_whole() -> None:
    kit = toolkit(Memory(window()), BACK)
    assert not kit.live
    assert kit.lookback_s == RECORDING_LOOKBACK_S
    live = toolkit(Memory(window()), BACK, live=True)
    assert (live.live, live.lookback_s) == (True, 120)


async def test_metrics_come_worst_first_and_say_what_was_cut() -> None:
    many = {("north", "back", f"pool_{index}(count)"): step(0, 10 * index) for index in range(1, 12)}
    observation = await query_metrics(toolkit(Memory(window(many)), BACK), Aspect.DATABASE)
    subject = observation.value["subject"]
    assert len(subject) == MAX_METRICS
    assert [entry["bad"] for entry in subject] == sorted((entry["bad"] for entry in subject), reverse=True)
    assert observation.truncated == f"the {MAX_METRICS} most deviant metrics of each kind"


async def test_errors_are_found_with_their_pattern_and_count() -> None:
    observation = await search_errors(toolkit(Memory(window(logs=LOGS)), BACK))
    [pattern] = observation.value["patterns"]
    assert (pattern["template"], pattern["recent"], pattern["expected"]) == ("it broke", 20, 0)
    latest = await get_application_logs(toolkit(Memory(window(logs=LOGS)), BACK))
    assert latest.value["levels"] == {"ERROR": 20, "INFO": 40}
    assert latest.truncated == "the latest 8 errors"


async def test_a_hop_knows_what_the_service_itself_does_not_account_for() -> None:
    slow = window(
        {
            ("north", "middle", "client_latency_p50(ms):back"): step(20, 700),
            ("south", "middle", "client_latency_p50(ms):back"): step(20, 700),
            ("south", "back", "latency_p95(ms)"): step(20, 700),
        }
    )
    [unexplained] = (await trace_route(toolkit(Memory(slow), BACK))).value["incoming"]
    assert (unexplained["caller"], unexplained["callee"]) == ("middle", "back")
    south = BACK.model_copy(update={"region": "south"})
    [explained] = (await trace_route(toolkit(Memory(slow), south))).value["incoming"]
    assert explained["excess"] < 1


async def test_a_live_tool_needs_credentials() -> None:
    kit = Toolkit(BACK, "u", NOW, NOW, 60, Memory(window()), None, References(), None)
    with pytest.raises(AssertionError):
        await kit.activity()


def test_floats_are_cut_to_six_digits_at_any_depth() -> None:
    assert tidy({"a": [1 / 3, {"b": 2e9 / 3}], "c": True, "d": 12345678}) == {
        "a": [0.333333, {"b": 666667000.0}],
        "c": True,
        "d": 12345678,
    }
