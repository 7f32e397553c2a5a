"""Contract: blame lands on the deepest changed callee with its nearest cause, every claim cites observations that
exist, nothing is named without evidence or below quorum, and "no fault" is said only when all was seen."""

from dataclasses import replace

import pytest

from oncall.analyst.synthesize import synthesize
from oncall.analyst.thresholds import NOTABLE, SEVERE
from oncall.model.agent import Specialist
from oncall.model.coverage import Coverage
from oncall.model.diagnosis import Conclusion, Diagnosis
from oncall.model.finding import Finding
from oncall.telemetry.window import Series
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


async def without_middle(changes: Changes) -> Diagnosis:
    """The diagnosis when nothing is measured of the middle, by a quorum that this is no matter for."""
    seen = window(changes)
    left = {place: metrics for place, metrics in seen.series.items() if place != ("north", "middle")}
    every = await findings(replace(seen, series=left))
    return synthesize(every, TOPOLOGY, Coverage(planned=len(every), completed=len(every)), 0.5).diagnosis


@pytest.mark.parametrize("calls", [{}, {("north", "front", "client_errors(1/s):middle"): step(0, 5)}])
async def test_a_caller_is_not_blamed_for_a_callee_that_nobody_could_measure(calls: Changes) -> None:
    sick = {FAILING_FRONT: step(0, 90), **calls}
    assert (await analysis(window(sick))).diagnosis.conclusion is Conclusion.ROOT_CAUSE
    blind = await without_middle(sick)
    assert blind.conclusion is Conclusion.INCONCLUSIVE
    assert blind.ranked[0].service == "front"
    assert "it calls middle, of which nothing could be measured" in blind.summary


async def test_a_caller_with_a_cause_of_its_own_is_blamed_whatever_its_callee_hides() -> None:
    sick = {FAILING_FRONT: step(0, 90), ("north", "front", "pool_waiting(count)"): step(0, 30)}
    root = (await without_middle(sick)).root_cause
    assert root is not None
    assert (root.service, root.specialist) == ("front", Specialist.DATABASE)


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
