"""Contract: blame lands on the deepest changed callee with its nearest cause, every claim cites observations that
exist, nothing is named without evidence or below quorum, and "no fault" is said only when all was seen."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from oncall.analyst.synthesize import synthesize
from oncall.analyst.thresholds import NOTABLE, SEVERE
from oncall.model.agent import Specialist
from oncall.model.coverage import Coverage
from oncall.model.diagnosis import Conclusion, Diagnosis
from oncall.model.finding import Finding
from oncall.telemetry.window import LogLines, Place, Series
from tests.analyst.worlds import REGIONS, SERVICES, TOPOLOGY, analysis, findings, joined, lines, points, step, window

Changes = dict[tuple[str, str, str], Series]
# Everything from the front to the back fails; the front, where it adds up, looks worst.
CASCADE: Changes = {
    ("north", "back", "error_rate(%)"): step(0, 60),
    ("north", "back", "latency_p95(ms)"): step(20, 500),
    ("north", "middle", "error_rate(%)"): step(0, 70),
    ("north", "middle", "latency_p95(ms)"): step(20, 700),
    ("north", "front", "error_rate(%)"): step(0, 90),
    ("north", "front", "latency_p95(ms)"): step(20, 1500),
    ("north", "middle", "client_errors(1/s):back"): step(0, 5),
    ("north", "front", "client_errors(1/s):middle"): step(0, 5),
}


async def test_the_deepest_changed_callee_is_blamed() -> None:
    result = await analysis(window({**CASCADE, ("north", "back", "pool_waiting(count)"): step(0, 30)}))
    root = result.diagnosis.root_cause
    assert root is not None
    assert (root.region, root.service, root.specialist) == ("north", "back", Specialist.DATABASE)
    assert result.diagnosis.conclusion is Conclusion.ROOT_CAUSE
    assert not result.diagnosis.abstained
    assert 0 < root.confidence <= 0.95
    assert result.diagnosis.ranked[0].service == "back"


FAILING_FRONT = ("north", "front", "error_rate(%)")
FULL_POOL = {("north", "front", "pool_waiting(count)"): step(0, 30)}
REFUSED = {
    ("north", "front"): joined(
        lines(60, "ok", 110, "INFO"), lines(40, "upstream middle: connection refused", 9, traces="t")
    )
}


def failing_calls(rate: float) -> Changes:
    """So many of the front's calls to the middle fail a second."""
    return {("north", "front", "client_errors(1/s):middle"): step(0, rate)}


async def without_middle(
    changes: Changes, logs: dict[Place, LogLines] | None = None, left: Collection[str] = ()
) -> Diagnosis:
    """The diagnosis when the front fails and no more is measured of the middle than the metrics that are `left`, by a
    quorum that this is no matter for."""
    seen = window({FAILING_FRONT: step(0, 90), **changes}, logs)
    dark = {metric: values for metric, values in seen.metrics("north", "middle").items() if metric in left}
    every = await findings(replace(seen, series={**seen.series, ("north", "middle"): dark}))
    return synthesize(every, TOPOLOGY, Coverage(planned=len(every), completed=len(every)), 0.5).diagnosis


@pytest.mark.parametrize(
    ("changes", "logs", "left"),
    [
        ({}, None, ()),
        (failing_calls(5), None, ()),
        # A process that is gone writes no log: its caller's errors look like the caller's own.
        ({}, REFUSED, ()),
        # What else gives out is no reason where the calls fail more.
        ({**failing_calls(5), ("north", "front", "pool_waiting(count)"): step(0, 7)}, None, ()),
        # Its host is seen, it is not.
        (failing_calls(5), None, ("cpu(%)",)),
    ],
)
async def test_a_caller_is_not_blamed_for_a_callee_that_nobody_could_measure(
    changes: Changes, logs: dict[Place, LogLines] | None, left: Collection[str]
) -> None:
    blind = await without_middle(changes, logs, left)
    assert blind.conclusion is Conclusion.INCONCLUSIVE
    assert blind.ranked[0].service == "front"
    assert "it calls middle, which nobody could measure" in blind.summary


@pytest.mark.parametrize("calls", [{}, failing_calls(0.3), failing_calls(5)])
async def test_a_caller_with_a_stronger_cause_of_its_own_is_blamed_whatever_its_callee_hides(calls: Changes) -> None:
    root = (await without_middle({**FULL_POOL, **calls})).root_cause
    assert root is not None
    assert (root.service, root.specialist) == ("front", Specialist.DATABASE)


async def test_a_caller_whose_calls_are_well_is_blamed_though_its_callee_is_dark() -> None:
    root = (await without_middle({("north", "front", "client_errors(1/s):middle"): step(0, 0)})).root_cause
    assert root is not None
    assert root.service == "front"


async def test_a_caller_that_fails_before_it_calls_is_blamed_though_its_callee_has_no_traffic_left() -> None:
    root = (await without_middle({}, left=("cpu(%)", "pool_waiting(count)"))).root_cause
    assert root is not None
    assert root.service == "front"


async def test_less_that_was_looked_at_is_no_reason_to_blame_more() -> None:
    every = [each for each in await findings(window({FAILING_FRONT: step(0, 90)})) if each.service == "front"]
    here = [finding for finding in every if finding.region == "north"]
    coverage = Coverage(planned=len(here), completed=len(here))
    diagnosis = synthesize(here, TOPOLOGY, coverage, 0.8).diagnosis
    assert diagnosis.conclusion is Conclusion.INCONCLUSIVE
    assert "it calls middle" in diagnosis.summary


async def test_errors_of_its_own_without_another_subject_are_for_the_logs() -> None:
    sick = window(
        {("north", service, "error_rate(%)"): step(0, 80) for service in SERVICES},
        logs={
            ("north", service): joined(lines(60, "ok", 110, "INFO"), lines(20, f"{service} failed", 9, traces="t"))
            for service in SERVICES
        },
    )
    root = (await analysis(sick)).diagnosis.root_cause
    assert root is not None
    assert (root.region, root.service, root.specialist) == ("north", "back", Specialist.LOGS)


async def test_slow_calls_to_a_service_that_is_not_slow_itself_are_for_the_network() -> None:
    sick = window(
        {
            ("north", "middle", "client_latency_p50(ms):back"): step(20, 700),
            ("north", "middle", "latency_p95(ms)"): step(20, 720),
            ("north", "front", "latency_p95(ms)"): step(20, 740),
        }
    )
    root = (await analysis(sick)).diagnosis.root_cause
    assert root is not None
    assert (root.service, root.specialist) == ("back", Specialist.NETWORK)


async def test_claims_cite_observations_that_are_handed_over() -> None:
    result = await analysis(window({**CASCADE, ("north", "back", "pool_waiting(count)"): step(0, 30)}))
    handed = {observation.id for observation in result.observations}
    assert len(result.diagnosis.claims) >= 3
    for claim in result.diagnosis.claims:
        assert claim.observations
        assert set(claim.observations) <= handed
    assert any("keeps its usual range in south" in claim.text for claim in result.diagnosis.claims)
    assert result.diagnosis.dropped_claims == 0


async def test_a_fault_as_old_as_the_window_is_not_called_quiet() -> None:
    old = points([80.0] * 60)
    sick = window({("north", service, "error_rate(%)"): old for service in ("back", "middle", "front")})
    result = await analysis(sick)
    assert result.diagnosis.conclusion is not Conclusion.NO_FAULT
    assert result.diagnosis.ranked[0].region == "north"


async def test_a_quiet_estate_has_no_fault_and_no_action() -> None:
    result = await analysis(window(logs={}))
    assert result.diagnosis.conclusion is Conclusion.NO_FAULT
    assert result.diagnosis.abstained
    assert not result.actions
    assert not result.diagnosis.claims


async def test_a_figure_that_strays_while_nothing_suffers_is_no_fault() -> None:
    result = await analysis(window({("north", "back", "cache_hit_rate(%)"): step(20, 0)}, logs={}))
    assert NOTABLE <= result.diagnosis.ranked[0].score < SEVERE
    assert result.diagnosis.conclusion is Conclusion.NO_FAULT
    assert "strayed a little" in result.diagnosis.summary


async def test_quiet_but_not_all_seen_is_not_no_fault() -> None:
    result = await analysis(window(), keep=lambda finding: finding.service != "back")
    assert result.diagnosis.conclusion is Conclusion.INCONCLUSIVE
    assert "agents did not report" in " ".join(result.diagnosis.blind)


async def test_a_suspect_whose_peers_were_not_seen_is_inconclusive() -> None:
    sick = window({**CASCADE, ("north", "back", "pool_waiting(count)"): step(0, 30)})

    def keep(finding: Finding) -> bool:
        return finding.region == "north" or finding.service != "back"

    result = await analysis(sick, keep)
    assert result.diagnosis.conclusion is Conclusion.INCONCLUSIVE
    assert result.diagnosis.root_cause is None
    assert "quorum" in result.diagnosis.summary
    assert result.diagnosis.ranked[0].service == "back"
    assert not result.actions


async def test_the_same_fault_everywhere_is_not_no_fault() -> None:
    sick = window({(region, "back", "error_rate(%)"): step(0, 60) for region in REGIONS})
    result = await analysis(sick)
    assert result.diagnosis.conclusion is Conclusion.INCONCLUSIVE


async def test_two_that_stand_out_alike_are_inconclusive() -> None:
    sick = window({("north", "back", "error_rate(%)"): step(0, 60), ("south", "middle", "error_rate(%)"): step(0, 60)})
    result = await analysis(sick)
    assert result.diagnosis.conclusion is Conclusion.INCONCLUSIVE
    assert "alike" in result.diagnosis.summary


def test_no_findings_at_all_is_inconclusive() -> None:
    result = synthesize([], TOPOLOGY, Coverage(planned=30, failed=30), 0.8)
    assert result.diagnosis.conclusion is Conclusion.INCONCLUSIVE
    assert result.diagnosis.blind == ("30 of 30 agents did not report",)


async def test_the_order_of_arrival_changes_nothing() -> None:
    seen = await findings(window({**CASCADE, ("north", "back", "pool_waiting(count)"): step(0, 30)}))
    whole = Coverage(planned=len(seen), completed=len(seen))
    forwards = synthesize(seen, TOPOLOGY, whole, 0.8)
    backwards = synthesize(seen[::-1], TOPOLOGY, whole, 0.8)
    assert forwards.diagnosis.ranked == backwards.diagnosis.ranked
    assert forwards.diagnosis.root_cause == backwards.diagnosis.root_cause
