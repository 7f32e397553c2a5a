"""Contract: progress tells what the report tells; the counts by place add up, and never grow beyond the roster's."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from oncall.model.access import AccessKind, GateStatus
from oncall.model.action import Outcome
from oncall.model.agent import Agent, Specialist
from oncall.model.coverage import Coverage, Wave
from oncall.model.report import ActionEntry, IncidentReport
from oncall.rules.coverage import AgentOutcome, answered, count, next_wave
from oncall.rules.progress import asked, progress
from tests.cli.test_reports import report

REGIONS = ("eu-west-1", "us-east-1")
agents = st.builds(
    Agent,
    specialist=st.sampled_from(Specialist),
    service=st.sampled_from(("order", "gateway", "cart")),
    region=st.sampled_from(REGIONS),
)


@given(st.lists(st.tuples(agents, st.sampled_from(AgentOutcome))))
def test_places_add_up_to_the_coverage(answers: list[tuple[Agent, AgentOutcome]]) -> None:
    coverage = Coverage(planned=len(answers))
    wave = next_wave(Wave(), tuple(agent for agent, _ in answers))
    for agent, outcome in answers:
        coverage, wave = count(coverage, outcome), answered(wave, agent, outcome)
    for name in Coverage.model_fields:
        assert sum(getattr(place, name) for place in wave.places) == getattr(coverage, name)
    assert len(wave.places) <= len(REGIONS) * len(Specialist)


def test_a_wave_counts_from_its_own_beginning_and_only_its_own() -> None:
    here = Agent(specialist=Specialist.LOGS, service="order", region="eu-west-1")
    there = here.model_copy(update={"region": "us-east-1"})
    first = answered(next_wave(Wave(), (here,)), here, AgentOutcome.COMPLETED)
    assert [(place.region, place.planned, place.completed) for place in first.places] == [("eu-west-1", 1, 1)]
    assert answered(first, there, AgentOutcome.FAILED) == first
    second = next_wave(first, (here, there))
    assert second.number == 2
    assert [(place.region, place.planned, place.completed) for place in second.places] == [
        ("eu-west-1", 1, 0),
        ("us-east-1", 1, 0),
    ]


def asking(outcome: Outcome, decision: GateStatus) -> IncidentReport:
    """A report of one action that was asked for, still open."""
    found = report("word")
    action: ActionEntry = found.actions[0].model_copy(update={"outcome": outcome})
    entry = found.access[0].model_copy(update={"decision": decision})
    return found.model_copy(update={"actions": (action,), "access": (entry,), "closed_at": None})


def test_an_action_has_no_outcome_before_it_is_known() -> None:
    waiting = progress(asking(Outcome.SKIPPED, GateStatus.PENDING), settled=())
    assert [(action.decision, action.outcome) for action in waiting.actions] == [(GateStatus.PENDING, None)]
    (request,) = waiting.waiting
    assert (request.request_id, request.what) == ("req-1", "WRITE disable_flag flag=word")
    assert waiting.waiting_for == ("req-1",)
    skipped = progress(asking(Outcome.SKIPPED, GateStatus.APPROVED), settled=("act-1",))
    assert [action.outcome for action in skipped.actions] == [Outcome.SKIPPED]
    assert skipped.waiting == ()


def test_a_final_report_tells_every_outcome() -> None:
    final = progress(report("word"))
    assert [action.outcome for action in final.actions] == [Outcome.DENIED]
    assert (final.status, final.closed_at, final.recovered) == (
        "unresolved",
        datetime(2026, 11, 20, 20, tzinfo=UTC),
        False,
    )
    assert final.notes == ("word",)


def test_what_is_asked_is_one_line() -> None:
    assert asked(AccessKind.READ, None, 3) == "READ access to 3 references"
    kill = {"type": "kill_queries", "region": "eu-west-1", "max_count": 4}
    assert asked(AccessKind.WRITE, kill, 1) == "WRITE kill_queries region=eu-west-1 max_count=4"
