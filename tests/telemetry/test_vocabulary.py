"""Contract: a metric's meaning follows from the field's words in its name, in whatever style it is written."""

import pytest

from oncall.telemetry.vocabulary import Aspect, meaning


@pytest.mark.parametrize(
    ("metric", "aspect", "bad"),
    [
        ("error_rate(%)", Aspect.ERRORS, 1),
        ("latency_p95(ms)", Aspect.LATENCY, 1),
        ("PodServerLatencyP99(s)", Aspect.LATENCY, 1),
        ("availability_average", Aspect.SUCCESS, -1),
        ("ServiceSuccessRate(%)", Aspect.SUCCESS, -1),
        ("requests(1/s)", Aspect.TRAFFIC, 0),
        ("pool_timeouts(1/s)", Aspect.DATABASE, 1),
        ("pg_connections", Aspect.DATABASE, 1),
        ("cache_hit_rate(%)", Aspect.CACHE, -1),
        ("evicted_keys", Aspect.CACHE, 1),
        ("CpuUsageRate(%)", Aspect.RESOURCES, 1),
        ("NetworkReceiveBytes", Aspect.NETWORK, 1),
        ("something_else", Aspect.OTHER, 0),
        ("", Aspect.OTHER, 0),
    ],
)
def test_aspect_and_bad_direction(metric: str, aspect: Aspect, bad: int) -> None:
    assert (meaning(metric).aspect, meaning(metric).bad) == (aspect, bad)


def test_a_call_metric_names_its_other_end_and_side() -> None:
    outside = meaning("client_latency_p50(ms):some-service")
    assert (outside.end, outside.outside, outside.aspect) == ("some-service", True, Aspect.LATENCY)
    inside = meaning("ServerLatencyP50(s):frontend")
    assert (inside.end, inside.outside) == ("frontend", False)


def test_units_set_the_smallest_change_worth_naming() -> None:
    assert meaning("latency(ms)").floor == 1000 * meaning("latency(s)").floor
    assert meaning("latency_p99").floor == meaning("latency_p99(s)").floor


def test_a_subjects_own_failures_are_known() -> None:
    assert meaning("pool_timeouts(1/s)").failures
    assert not meaning("pool_waiting(count)").failures


def test_a_nodes_metric_is_shared() -> None:
    assert meaning("NodeCpuUsageRate(%)").shared
