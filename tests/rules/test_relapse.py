"""When the same trouble is a new problem: what came back after its incident ended, and nothing else."""

from datetime import UTC, datetime, timedelta

from oncall.model.incident import Ending
from oncall.model.shift import FollowedIncident, IncidentState, Problem
from oncall.rules import watching
from tests.workflows.scripted import trouble

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CLEAR = timedelta(seconds=60)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def worked_on() -> list[Problem]:
    problems = watching.look([], [trouble(since=at(0))], at(5), CLEAR)
    return watching.opened(problems, problems[0], "run", at(5))


def ended(how: Ending, closed_at: datetime | None) -> FollowedIncident:
    return FollowedIncident(
        incident_id=watching.incident_id(trouble()),
        run_id="run",
        state=IncidentState.CLOSED,
        status=how,
        closed_at=closed_at,
    )


def test_a_relapse_between_the_end_of_an_incident_and_the_next_look_is_a_new_problem() -> None:
    problems = watching.follow(worked_on(), [ended(Ending.RESOLVED, at(100))], at(125), CLEAR)
    problems = watching.look(problems, [trouble(since=at(105))], at(125), CLEAR)
    assert len(watching.queued(problems)) == 1


def test_what_is_still_the_old_trouble_is_not() -> None:
    problems = watching.follow(worked_on(), [ended(Ending.RESOLVED, at(100))], at(125), CLEAR)
    problems = watching.look(problems, [trouble(since=at(0))], at(125), CLEAR)
    assert watching.queued(problems) == []
