"""Contract: a deviation is finite whatever the past looks like, finds drops as well as spikes, says when it began, is
not fooled by what is over, by an absent past or by what every region shares."""

import math
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.telemetry.deviation import CAP, badness, deviate, deviations, unshared
from oncall.telemetry.vocabulary import meaning
from oncall.telemetry.window import Series
from oncall.tools.toolkit import window_start
from tests.analyst.worlds import NOW, PERIOD_S, points, step, window

END = NOW.timestamp()
LATENCY, ERRORS, HITS = meaning("latency_p95(ms)"), meaning("error_rate(%)"), meaning("cache_hit_rate(%)")


def test_a_constant_past_makes_no_change_infinite() -> None:
    spike = deviate(step(0.0, 80.0), ERRORS, END)
    assert spike is not None
    assert 20 < spike.own <= CAP
    tiny = deviate(step(0.0, 0.5), ERRORS, END)
    assert tiny is not None
    assert abs(tiny.own) < 1


def test_a_drop_counts_and_is_bad_only_where_less_is_worse() -> None:
    dropped = deviate(step(95.0, 10.0, jitter=1.0), HITS, END)
    assert dropped is not None
    assert dropped.own < -5
    assert badness(dropped, HITS) == -dropped.score
    faster = deviate(step(200.0, 20.0, jitter=1.0), LATENCY, END)
    assert faster is not None
    assert faster.own < -5
    assert badness(faster, LATENCY) == 0


@pytest.mark.parametrize("recent", [2, 3, 5, 12, 30])
def test_the_onset_is_where_the_level_changed(recent: int) -> None:
    found = deviate(step(20.0, 900.0, recent=recent, jitter=2.0), LATENCY, END)
    assert found is not None
    assert found.onset == pytest.approx(END - PERIOD_S * (recent - 1))
    assert found.points == recent


def test_a_fault_of_seconds_is_found_after_twenty_seconds_of_past() -> None:
    found = deviate(points([20.0] * 10 + [900.0] * 3), LATENCY, END)
    assert found is not None
    assert found.own > 12


def test_what_is_over_is_no_fault() -> None:
    found = deviate(points([20.0] * 40 + [900.0] * 10 + [20.0] * 3), LATENCY, END)
    assert found is not None
    assert badness(found, LATENCY) < 1


def test_a_single_reading_of_two_seconds_weighs_little() -> None:
    found = deviate(step(20.0, 200.0, recent=1), LATENCY, END)
    assert found is not None
    assert 0 < found.own < 6


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 5])
def test_no_past_is_no_deviation(values: list[float]) -> None:
    assert deviate(points(values), LATENCY, END) is None


def test_a_series_that_stopped_says_nothing_about_now() -> None:
    stopped = points([20.0] * 30 + [900.0] * 5)
    assert deviate(stopped, LATENCY, END + 60) is None


def test_values_that_are_no_numbers_are_dropped() -> None:
    found = deviate(points([20.0, math.nan] * 20 + [900.0, math.inf] * 5), LATENCY, END)
    assert found is not None
    assert found.past == 20.0
    assert math.isfinite(found.own)


@pytest.mark.parametrize("waited_s", [0, 60, 190, 240, 300, 420, 600, 1200, 1800])
@pytest.mark.parametrize("late_s", [0, 6, 30])
def test_a_fault_is_found_however_long_people_took_to_answer(waited_s: int, late_s: int) -> None:
    alert_at = NOW - timedelta(seconds=waited_s)
    span_s = (NOW - window_start(NOW, alert_at, 300)).total_seconds()
    sick = max(3, round((waited_s + late_s) / PERIOD_S))
    healthy = round(span_s / PERIOD_S) - sick
    found = deviate(points([0.0] * healthy + [60.0] * sick), ERRORS, END)
    assert found is not None
    assert found.own > 12
    assert found.onset == pytest.approx(END - (sick - 1) * PERIOD_S, abs=PERIOD_S)


def test_a_fault_that_fills_the_window_is_held_against_the_peers() -> None:
    old = points([80.0] * 60)
    success = {"north": points([20.0] * 60), "south": points([99.0] * 60)}
    changes = {(region, "back", "success_rate(%)"): series for region, series in success.items()}
    sick = window({("north", "back", "error_rate(%)"): old, **changes})
    north = deviations(sick, "north", "back", ("north", "south"))
    for metric in ("error_rate(%)", "success_rate(%)"):
        assert badness(north[metric], meaning(metric)) > 6, metric
        assert north[metric].onset == float(old.times[0])
    south = deviations(sick, "south", "back", ("north", "south"))
    assert all(badness(south[metric], meaning(metric)) == 0 for metric in ("error_rate(%)", "success_rate(%)"))


@pytest.mark.parametrize(("here", "there"), [(0.3, 0.0), (3.0, 2.0), (60.0, 55.0), (60.0, 59.0)])
def test_what_peers_show_too_or_nearly_is_a_habit(here: float, there: float) -> None:
    alike = window(
        {
            ("north", "back", "error_rate(%)"): points([here] * 60),
            ("south", "back", "error_rate(%)"): points([there] * 60),
        }
    )
    found = deviations(alike, "north", "back", ("north", "south"))["error_rate(%)"]
    assert badness(found, ERRORS) < 6


def test_what_a_peer_shares_is_taken_away() -> None:
    slow = step(20.0, 900.0, jitter=1.0)
    own = deviate(slow, LATENCY, END)
    assert own is not None
    alone = unshared(own, LATENCY, {"south": step(20.0, 20.0, jitter=1.0)})
    shared = unshared(own, LATENCY, {"south": slow, "east": step(20.0, 20.0)})
    assert alone.score == own.own
    assert abs(shared.score) < 1
    assert shared.own == own.own
    assert shared.peers == ("south", "east")


def test_a_peers_earlier_incident_hides_nothing_here() -> None:
    own = deviate(step(0.0, 80.0), ERRORS, END)
    assert own is not None
    healed = points([0.0] * 25 + [100.0] * 20 + [0.0] * 15)
    assert unshared(own, ERRORS, {"south": healed}).score == own.own


def test_a_healthy_region_is_not_blamed_for_a_sick_peer() -> None:
    sick = window({("north", "back", "latency_p95(ms)"): step(20.0, 900.0)})
    calm = deviations(sick, "south", "back", ("north", "south"))["latency_p95(ms)"]
    assert abs(calm.score) < 3


def test_it_is_worked_out_once_per_window() -> None:
    quiet = window()
    assert deviations(quiet, "north", "back", ()) is deviations(quiet, "north", "back", ())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e9, 1e9), min_size=0, max_size=80))
def test_any_series_gives_a_finite_deviation_or_none(values: list[float]) -> None:
    found = deviate(points(values), LATENCY, END)
    if found is not None:
        assert math.isfinite(found.own)
        assert abs(found.own) <= CAP
        assert found.spread > 0
        assert 1 <= found.points <= len(values)


def test_an_empty_series_is_a_series() -> None:
    assert isinstance(points([]), Series)
