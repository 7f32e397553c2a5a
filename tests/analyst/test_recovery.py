"""Contract: recovery is the same figures before and after against what was usual; what is not measured is not "ok"."""

import math
from datetime import timedelta

from oncall.analyst.recovery import recovery_checks, symptom_checks, symptoms
from oncall.model.agent import Specialist
from oncall.model.diagnosis import RootCause
from oncall.model.symptom import Symptom
from oncall.model.verification import Verification
from oncall.telemetry.window import Window
from tests.analyst.worlds import NOW, TOPOLOGY, points, step, window

ROOT = RootCause(region="north", service="back", specialist=Specialist.DATABASE, cause="c", confidence=0.9)
SICK = window(
    {
        ("north", service, metric): step(usual, bad, jitter=0.01 * usual)
        for service in ("back", "front")
        for metric, usual, bad in (("error_rate(%)", 0.0, 80.0), ("latency_p95(ms)", 20.0, 900.0))
    }
)
WELL = window()
BEFORE = symptoms(SICK, TOPOLOGY, ROOT)


def test_the_root_service_and_the_entrance_are_measured() -> None:
    found = {(symptom.service, symptom.metric): symptom for symptom in symptoms(SICK, TOPOLOGY, ROOT)}
    assert set(found) == {(s, m) for s in ("back", "front") for m in ("error_rate(%)", "latency_p95(ms)")}
    errors = found["back", "error_rate(%)"]
    assert errors.before == 80
    assert errors.threshold is not None
    assert 0 < errors.threshold < 20


def test_back_to_usual_is_recovered() -> None:
    result = recovery_checks(BEFORE, WELL, TOPOLOGY, ROOT, 4, 0)
    assert result.recovered
    assert result.improved
    assert len(result.checks) == 5
    assert all(check.before is not None and check.before > check.threshold for check in result.checks)
    assert all(check.after is not None and check.after <= check.threshold for check in result.checks)


def test_still_bad_is_neither_recovered_nor_improved() -> None:
    result = recovery_checks(BEFORE, SICK, TOPOLOGY, ROOT, 4, 4)
    assert not result.recovered
    assert not result.improved


def test_one_bad_reading_among_the_latest_is_not_recovered() -> None:
    relapse = window({("north", "front", "error_rate(%)"): points([0.0] * 59 + [50.0])})
    result = recovery_checks(BEFORE, relapse, TOPOLOGY, ROOT, 4, 0)
    assert not result.recovered
    assert result.improved


def test_long_running_statements_left_are_not_recovered() -> None:
    assert not recovery_checks(BEFORE, WELL, TOPOLOGY, ROOT, 4, 1).recovered


def test_unknown_is_not_ok() -> None:
    unknown = recovery_checks(BEFORE, WELL, TOPOLOGY, ROOT, 4, None)
    assert not unknown.recovered
    assert unknown.checks[-1].after is None
    silent = window({("north", "back", "error_rate(%)"): points([])})
    assert not recovery_checks(BEFORE, silent, TOPOLOGY, ROOT, 4, 0).recovered
    stopped = Window(start=WELL.start, end=NOW + timedelta(minutes=5), series=WELL.series)
    late = recovery_checks(BEFORE, stopped, TOPOLOGY, ROOT, 4, 0)
    assert not late.recovered
    assert [check.after for check in late.checks[:-1]] == [None] * 4


def test_nothing_to_measure_is_not_recovered() -> None:
    nothing = Window(start=NOW - timedelta(seconds=60), end=NOW, series={})
    logs = ROOT.model_copy(update={"specialist": Specialist.LOGS})
    result = recovery_checks((), nothing, TOPOLOGY, logs, None, None)
    assert not result.recovered
    assert result.checks == ()


def test_where_nothing_was_measurably_bad_nothing_has_recovered() -> None:
    result = recovery_checks(symptoms(WELL, TOPOLOGY, ROOT), WELL, TOPOLOGY, ROOT, 0, 0)
    assert all(check.ok for check in result.checks)
    assert not result.recovered


def test_figures_alone_are_measured_without_a_cause() -> None:
    back = symptom_checks(BEFORE, WELL, TOPOLOGY)
    assert (back.recovered, back.improved, len(back.checks)) == (True, True, 4)
    assert not symptom_checks(BEFORE, SICK, TOPOLOGY).recovered
    assert symptom_checks((), WELL, TOPOLOGY) == Verification(recovered=False, improved=False, checks=())


def test_of_a_figure_that_may_go_either_way_nobody_can_say_that_it_is_well() -> None:
    either = Symptom(region="north", service="back", metric="requests(1/s)", before=90, threshold=10)
    busy = window({("north", "back", "requests(1/s)"): step(5, 5)})
    [check] = symptom_checks((either,), busy, TOPOLOGY).checks
    assert not check.ok


def test_without_a_past_of_its_own_its_peers_say_what_is_usual() -> None:
    young = window({("north", "back", "error_rate(%)"): points([80.0, 80.0])})
    [errors] = [s for s in symptoms(young, TOPOLOGY, ROOT) if (s.service, s.metric) == ("back", "error_rate(%)")]
    assert errors.before == 80
    assert errors.threshold is not None
    assert errors.threshold < 20


def test_a_host_that_is_slow_everywhere_does_not_hold_recovery_up() -> None:
    slow = {
        (region, service, "latency_p95(ms)"): step(20, 150, recent=20)
        for region in TOPOLOGY.regions
        for service in ("back", "front")
    }
    assert recovery_checks(BEFORE, window(slow), TOPOLOGY, ROOT, 4, 0).recovered
    alone = {key: value for key, value in slow.items() if key[0] == "north"}
    assert not recovery_checks(BEFORE, window(alone), TOPOLOGY, ROOT, 4, 0).recovered


def test_a_success_rate_must_rise_again() -> None:
    metric = "success_rate(%)"
    fallen = window({("north", "back", metric): step(100, 20)})
    still = recovery_checks(symptoms(fallen, TOPOLOGY, ROOT), fallen, TOPOLOGY, ROOT, 0, 0)
    [check] = [check for check in still.checks if check.name == metric]
    assert not check.ok
    assert check.after is not None
    assert math.isclose(check.after, -20)
    risen = window({("north", "back", metric): step(100, 100)})
    [check] = [
        c
        for c in recovery_checks(symptoms(fallen, TOPOLOGY, ROOT), risen, TOPOLOGY, ROOT, 0, 0).checks
        if c.name == metric
    ]
    assert check.ok
