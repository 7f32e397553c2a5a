"""Contract: a figure is noticed once it has been out of range for `for_s` and still is; errors by requests and above
what is usual there, latency and processors beyond what every region shows alike; what cannot be seen is named.
"""

import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.analyst.notice import Noticed, notice
from oncall.analyst.recovery import recovery_checks
from oncall.config import ShiftConfig
from oncall.model.agent import Specialist
from oncall.model.diagnosis import RootCause
from oncall.model.shift import Sighting, Trouble
from oncall.telemetry.window import Series, Window
from tests.analyst.worlds import NOW, PERIOD_S, REGIONS, SERVICES, TOPOLOGY, points, window

LIMITS = ShiftConfig(for_s=10)
ALL_PAST = 450
ROOT = RootCause(region="north", service="back", specialist=Specialist.LOGS, cause="c", confidence=0.9)
Changes = dict[tuple[str, str, str], Series]


def levels(*parts: tuple[int, float]) -> Series:
    """A series that ends at NOW: so many readings of each value."""
    return points([value for count, value in parts for _ in range(count)])


def look(changes: Changes, thresholds: ShiftConfig = LIMITS) -> Noticed:
    return notice(window(changes), TOPOLOGY, thresholds, NOW)


def one(changes: Changes, thresholds: ShiftConfig = LIMITS) -> Sighting:
    """The only sighting."""
    [sighting] = look(changes, thresholds).sightings
    return sighting


def everywhere(metric: str, series: Series) -> Changes:
    return {(region, "back", metric): series for region in REGIONS}


def failing(*parts: tuple[int, float], requests: Sequence[tuple[int, float]] = ((ALL_PAST, 10.0),)) -> Changes:
    return {
        ("north", "back", "error_rate(%)"): levels(*parts),
        ("north", "back", "requests(1/s)"): levels(*requests),
    }


def test_a_quiet_estate_shows_nothing_and_is_seen_whole() -> None:
    assert look({}) == Noticed((), 6, ())


def test_errors_are_noticed_with_what_they_are_when_they_began_and_what_is_well() -> None:
    sighting = one(failing((ALL_PAST, 0), (5, 40)))
    assert sighting.trouble is Trouble.ERRORS
    assert (sighting.symptom.region, sighting.symptom.service) == ("north", "back")
    assert sighting.symptom.metric == "error_rate(%)"
    assert sighting.symptom.before == pytest.approx(40)
    assert sighting.symptom.threshold == pytest.approx(5)
    assert sighting.error_percent == pytest.approx(40)
    assert sighting.since == NOW - timedelta(seconds=10)


def test_what_has_not_lasted_or_is_over_is_not_noticed() -> None:
    assert not look(failing((ALL_PAST, 0), (4, 40))).sightings
    assert not look(failing((ALL_PAST, 0), (8, 90), (2, 0))).sightings


def test_a_good_reading_by_chance_does_not_start_it_anew() -> None:
    sighting = one(failing((ALL_PAST, 0), (8, 40), (1, 0), (3, 40)))
    assert sighting.since == NOW - timedelta(seconds=24)


def test_a_source_that_reads_once_a_minute_is_judged_by_two_readings() -> None:
    def every_minute(*parts: tuple[int, float]) -> Changes:
        changes = failing(*parts)
        return {
            key: Series(NOW.timestamp() - 30 * (NOW.timestamp() - series.times), series.values)
            for key, series in changes.items()
        }

    assert not look(every_minute((14, 0), (1, 90))).sightings
    assert one(every_minute((13, 0), (2, 90))).since == NOW - timedelta(seconds=120)


def test_requests_count_not_readings() -> None:
    mostly_idle = [(ALL_PAST, 10.0), (1, 2000.0), (4, 2.0)]
    assert not look(failing((ALL_PAST, 0), (1, 0), (4, 100), requests=mostly_idle)).sightings


def test_a_handful_of_requests_with_an_error_is_no_alarm() -> None:
    assert not look(failing((ALL_PAST, 0), (5, 50), requests=[(ALL_PAST, 0.4)])).sightings
    assert look(failing((ALL_PAST, 0), (5, 100), requests=[(ALL_PAST, 0.4)])).sightings


def test_what_has_always_failed_is_no_news_until_it_clearly_worsens() -> None:
    busy = [(ALL_PAST, 100.0)]
    assert not look(failing((ALL_PAST, 6), requests=busy)).sightings
    assert not look(failing((ALL_PAST, 6), (5, 8), requests=busy)).sightings
    assert one(failing((ALL_PAST, 6), (5, 15), requests=busy)).symptom.before == pytest.approx(15)


def test_what_is_usual_outlives_an_earlier_incident() -> None:
    past = ((180, 0.0), (180, 80.0), (80, 0.0))
    assert not look(failing(*past)).sightings
    again = one(failing(*past, (5, 10)))
    assert again.symptom.threshold == pytest.approx(5)
    assert again.since == NOW - timedelta(seconds=10)


def test_what_is_critical_never_becomes_usual() -> None:
    assert one(failing((ALL_PAST, 60))).symptom.before == pytest.approx(60)


def test_all_regions_failing_alike_is_an_outage_everywhere() -> None:
    found = look(everywhere("error_rate(%)", levels((60, 0), (5, 50)))).sightings
    assert {sighting.symptom.region for sighting in found} == set(REGIONS)


def test_a_success_rate_is_noticed_in_its_own_unit() -> None:
    changes = {
        ("north", "back", "error_rate(%)"): points([]),
        ("north", "back", "success_rate(%)"): levels((60, 100), (5, 70)),
    }
    sighting = one(changes)
    assert sighting.symptom.before == pytest.approx(70)
    assert sighting.symptom.threshold == pytest.approx(95)
    assert sighting.error_percent == pytest.approx(30)


def test_what_is_just_at_its_limit_is_out_of_range_and_so_not_well() -> None:
    at_the_limit = {
        ("north", "back", "error_rate(%)"): points([]),
        ("north", "back", "success_rate(%)"): levels((60, 100), (5, 95)),
    }
    for changes in (at_the_limit, failing((60, 0), (5, 5)), full("cpu(%)", (60, 20), (5, 90))):
        symptom = one(changes).symptom
        assert symptom.before is not None
        assert symptom.threshold == pytest.approx(symptom.before)
        assert symptom.threshold != symptom.before
        assert not recovery_checks((symptom,), window(changes), TOPOLOGY, ROOT, None, None).checks[0].ok


def test_errors_a_second_are_held_against_the_requests() -> None:
    changes = {
        ("north", "back", "error_rate(%)"): points([]),
        ("north", "back", "errors(1/s)"): levels((60, 0), (5, 4)),
        ("north", "back", "requests(1/s)"): levels((65, 20)),
    }
    sighting = one(changes)
    assert sighting.symptom.metric == "errors(1/s)"
    assert sighting.symptom.before == pytest.approx(4)
    assert sighting.symptom.threshold == pytest.approx(1)
    assert sighting.error_percent == pytest.approx(20)


def test_a_service_without_a_past_is_held_against_the_absolute_level_only() -> None:
    young = {
        ("north", "back", metric): levels((6, value))
        for metric, value in (("error_rate(%)", 40.0), ("latency_p95(ms)", 900.0), ("cpu(%)", 99.0))
    }
    assert one(young).trouble is Trouble.ERRORS


def slow(*parts: tuple[int, float], requests: float = 10.0) -> Changes:
    return {
        ("north", "back", "latency_p95(ms)"): levels(*parts),
        ("north", "back", "requests(1/s)"): levels((ALL_PAST, requests)),
    }


def test_latency_is_noticed_when_it_is_times_the_usual_and_much_more() -> None:
    sighting = one(slow((60, 20), (5, 300)))
    assert sighting.trouble is Trouble.LATENCY
    assert sighting.symptom.before == pytest.approx(300)
    assert sighting.symptom.threshold == pytest.approx(120)
    assert sighting.since == NOW - timedelta(seconds=10)
    assert not look(slow((60, 20), (5, 110))).sightings, "less than 100 ms more"
    assert not look(slow((60, 200), (5, 500))).sightings, "less than three times as slow"


def test_latency_survives_an_earlier_incident_in_its_past() -> None:
    assert one(slow((60, 20), (80, 900), (60, 20), (5, 300))).symptom.threshold == pytest.approx(120)


def test_latency_in_seconds_is_noticed_alike() -> None:
    changes = {
        ("north", "back", "latency_p95(ms)"): points([]),
        ("north", "back", "latency_p95"): levels((60, 0.02), (5, 0.3)),
    }
    assert one(changes).symptom.threshold == pytest.approx(0.12)


def test_a_host_that_slows_every_region_alike_is_nobodys_latency() -> None:
    assert not look(everywhere("latency_p95(ms)", levels((60, 20), (5, 300)))).sightings
    alone = slow((60, 20), (5, 2000)) | {("south", "back", "latency_p95(ms)"): levels((60, 20), (5, 80))}
    assert one(alone).symptom.threshold == pytest.approx(240)


def test_the_slow_ones_of_hardly_any_requests_say_nothing() -> None:
    assert not look(slow((60, 20), (5, 300), requests=0.5)).sightings


def full(metric: str, *parts: tuple[int, float]) -> Changes:
    return {("north", "back", metric): levels(*parts)}


def test_a_resource_that_is_nearly_used_up_is_noticed() -> None:
    sighting = one(full("cpu(%)", (60, 20), (5, 90)))
    assert sighting.trouble is Trouble.SATURATION
    assert sighting.error_percent is None
    assert one(full("disk_used(%)", (65, 97))).symptom.metric == "disk_used(%)"
    assert not look(full("cpu(%)", (60, 20), (5, 85))).sightings


@pytest.mark.parametrize(
    "metric", ["cpu_idle(%)", "cache_hit_rate(%)", "NodeCpuUsageRate(%)", "cache_miss_rate(%)", "memory(MB)"]
)
def test_idleness_rates_and_what_is_no_services_own_are_not_saturation(metric: str) -> None:
    assert not look(full(metric, (60, 20), (5, 99))).sightings


def test_a_pool_is_held_against_its_size_where_that_is_told() -> None:
    in_use = full("pool_in_use(count)", (60, 2), (5, 10))
    assert not look(in_use).sightings
    sighting = one(in_use | full("pool_size(count)", (65, 10)))
    assert sighting.symptom.before == 10
    assert sighting.symptom.threshold == pytest.approx(9)


def test_processors_short_everywhere_are_the_hosts_and_full_disks_are_not() -> None:
    assert not look(everywhere("cpu(%)", levels((60, 20), (5, 99)))).sightings
    assert len(look(everywhere("disk_used(%)", levels((60, 20), (5, 99)))).sightings) == 2


def test_a_sighting_is_not_recovered_while_it_lasts_and_is_once_it_is_over() -> None:
    for changes, well in (
        (failing((60, 0), (5, 40)), failing((60, 0))),
        (slow((60, 20), (5, 300)), slow((60, 20))),
        (full("cpu(%)", (60, 20), (5, 90)), full("cpu(%)", (60, 20))),
        (
            full("error_rate(%)") | full("success_rate(%)", (60, 100), (5, 70)),
            full("error_rate(%)") | full("success_rate(%)", (60, 100)),
        ),
    ):
        symptoms = (one(changes).symptom,)
        during = recovery_checks(symptoms, window(changes), TOPOLOGY, ROOT, None, None)
        after = recovery_checks(symptoms, window(well), TOPOLOGY, ROOT, None, None)
        assert [check.ok for check in (*during.checks, *after.checks)] == [False, True], changes.keys()
        assert after.recovered


def test_the_younger_edge_of_a_fault_counts_with_it_and_nothing_else_does() -> None:
    old, young = levels((60, 0), (5, 50)), levels((60, 0), (3, 50))
    changes = {("north", "front", "error_rate(%)"): old, ("north", "middle", "error_rate(%)"): young}
    elsewhere = {
        ("south", "middle", "error_rate(%)"): young,
        ("north", "back", "error_rate(%)"): levels((60, 0), (2, 50)),
    }
    found = look(changes | elsewhere).sightings
    assert {(one.symptom.region, one.symptom.service) for one in found} == {("north", "front"), ("north", "middle")}
    apart = {("north", "front", "error_rate(%)"): old, ("north", "back", "error_rate(%)"): young}
    assert [one.symptom.service for one in look(apart).sightings] == ["front"]


def test_a_service_that_cannot_be_seen_is_named_and_nothing_is_said_of_it() -> None:
    seen = window(failing((60, 0), (5, 90)))
    for metrics in ({}, {"error_rate(%)": points([90.0])}, {"error_rate(%)": points([math.nan] * 9)}):
        dark = Window(seen.start, seen.end, {**seen.series, ("north", "back"): metrics})
        assert notice(dark, TOPOLOGY, LIMITS, NOW) == Noticed((), 5, ("north/back",))
    stopped = {
        metric: Series(series.times - 60, series.values) for metric, series in seen.metrics("north", "back").items()
    }
    quiet = Window(seen.start, seen.end, {**seen.series, ("north", "back"): stopped})
    assert notice(quiet, TOPOLOGY, LIMITS, NOW) == Noticed((), 5, ("north/back",))


def test_without_a_recorder_nothing_is_seen_and_a_few_seconds_behind_is_normal() -> None:
    seen = window(failing((60, 0), (5, 90)))
    assert len(notice(seen, TOPOLOGY, LIMITS, NOW + timedelta(seconds=6)).sightings) == 1
    late = notice(seen, TOPOLOGY, LIMITS, NOW + timedelta(seconds=60))
    assert (late.sightings, late.services, len(late.blind)) == ((), 0, 6)
    empty = notice(Window(NOW - timedelta(seconds=900), NOW, {}), TOPOLOGY, LIMITS, NOW)
    assert (empty.sightings, empty.services, len(empty.blind)) == ((), 0, 6)


METRICS = ("error_rate(%)", "success_rate(%)", "errors(1/s)", "requests(1/s)", "latency_p95(ms)", "cpu(%)", "pool_size")
values = st.floats(-10, 1e6) | st.sampled_from([0.0, 100.0, math.nan, math.inf])
# Runs of a value, so that something lasts, some of them with a clock that jumps.
readings = st.lists(
    st.tuples(st.integers(1, 40), values, st.sampled_from([0.0, PERIOD_S, PERIOD_S, PERIOD_S, 15.0])), max_size=4
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(REGIONS), st.sampled_from(SERVICES), st.sampled_from(METRICS)), readings, max_size=16
    )
)
def test_whatever_the_telemetry_holds_a_sighting_is_out_of_range_and_as_old_as_it_says(
    held: dict[tuple[str, str, str], list[tuple[int, float, float]]],
) -> None:
    series: dict[tuple[str, str], dict[str, Series]] = {}
    for (region, service, metric), runs in held.items():
        gaps = np.array([gap for count, _, gap in runs for _ in range(count)])
        times = NOW.timestamp() - 1 - (gaps.sum() - np.cumsum(gaps))
        held_values = np.array([value for count, value, _ in runs for _ in range(count)])
        series.setdefault((region, service), {})[metric] = Series(times, held_values)
    with np.errstate(all="raise", under="ignore"):
        noticed = notice(Window(NOW - timedelta(seconds=1200), NOW, series), TOPOLOGY, LIMITS, NOW)
    assert noticed.services + len(noticed.blind) == len(TOPOLOGY.services)
    for sighting in noticed.sightings:
        symptom = sighting.symptom
        assert symptom.before is not None
        assert symptom.threshold is not None
        worse = -1 if symptom.metric == "success_rate(%)" else 1
        assert worse * symptom.before > worse * symptom.threshold
        assert sighting.since <= NOW - timedelta(seconds=LIMITS.for_s / 2 - PERIOD_S)
        assert f"{symptom.region}/{symptom.service}" not in noticed.blind
