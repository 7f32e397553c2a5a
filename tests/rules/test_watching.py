"""Contract: whatever a shift sees and however its incidents end, a problem has one incident at a time and no more run
than are admitted; what ended without recovery is left to people while it lasts; what recovered and began anew is a
new one; nothing in sight is forgotten."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oncall.model.alert import Severity
from oncall.model.incident import Ending
from oncall.model.shift import AlertGroup, FollowedIncident, IncidentState, Problem, Sighting, Trouble
from oncall.model.symptom import Symptom
from oncall.rules import watching
from oncall.rules.grouping import group
from tests.rules.test_grouping import REGIONS, SERVICES, TOPOLOGY

BEGIN = datetime(2026, 1, 2, 12, tzinfo=UTC)
INTERVAL = timedelta(seconds=30)
CLEAR = timedelta(seconds=75)
MOST = 2
CRITICAL = 20.0
Place = tuple[str, str]

places = st.tuples(st.sampled_from(REGIONS), st.sampled_from(SERVICES))


def sighting(place: Place, trouble: Trouble, since: datetime) -> Sighting:
    region, service = place
    symptom = Symptom(region=region, service=service, metric="error_rate(%)", before=50, threshold=5)
    return Sighting(trouble=trouble, symptom=symptom, since=since, error_percent=10)


class Shift(RuleBasedStateMachine):
    """A shift over an estate that breaks and mends at random, and incidents that end at random."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self.broken: dict[Place, tuple[Trouble, datetime]] = {}
        self.problems: list[Problem] = []
        self.groups: tuple[AlertGroup, ...] = ()
        self.runs: dict[str, str] = {}
        self.opened = 0
        self.closed: dict[Place, tuple[Ending, datetime]] = {}
        self.seen: dict[Place, list[datetime]] = {}

    # -- what happens -------------------------------------------------------------------------------------------

    @rule(place=places, trouble=st.sampled_from(Trouble))
    def breaks(self, place: Place, trouble: Trouble) -> None:
        self.broken[place] = (trouble, self.now)

    @rule(place=places)
    def mends(self, place: Place) -> None:
        self.broken.pop(place, None)

    @rule(seconds=st.sampled_from((1, 20, 90, 600)))
    def time_passes_without_a_look(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(random=st.randoms(use_true_random=False))
    def looks(self, random: Random) -> None:
        self.now += INTERVAL
        sightings = [sighting(place, *broken) for place, broken in self.broken.items()]
        self.groups = group(sightings, TOPOLOGY, CRITICAL)
        for place in self.broken:
            self.seen.setdefault(place, []).append(self.now)
        shuffled = list(self.groups)
        random.shuffle(shuffled)
        before = self.problems
        self.problems = watching.look(before, self.groups, self.now, CLEAR)
        in_another_order = watching.look(before, shuffled, self.now, CLEAR)
        assert covered(in_another_order) == covered(self.problems)
        self._every_group_has_its_problem()
        assert all(problem.running or self.now - problem.seen_at <= CLEAR for problem in self.problems)
        self._open()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), ending=st.sampled_from((*watching.RECOVERED, Ending.UNRESOLVED, Ending.MITIGATED)))
    def ends(self, data: st.DataObject, ending: Ending) -> None:
        incident_id = data.draw(st.sampled_from(sorted(self.runs)))
        (problem,) = (each for each in self.problems if each.running and each.incident_id == incident_id)
        self.closed[place_of(problem)] = (ending, self.now)
        self._told(incident_id, IncidentState.CLOSED, ending)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def is_cut_off(self, data: st.DataObject) -> None:
        incident_id = data.draw(st.sampled_from(sorted(self.runs)))
        (problem,) = (each for each in self.problems if each.running and each.incident_id == incident_id)
        self._told(incident_id, IncidentState.CUT_OFF, "terminated")
        kept = [each for each in self.problems if each.noticed_at == problem.noticed_at and not each.incident_id]
        assert [each.services for each in kept if place_of(each) == place_of(problem)] == (
            [problem.services] if self.now - problem.seen_at <= CLEAR else []
        )

    def _told(self, incident_id: str, state: IncidentState, status: str) -> None:
        run_id = self.runs.pop(incident_id)
        stale = FollowedIncident(
            incident_id=incident_id, run_id="another run", state=IncidentState.CLOSED, status="resolved"
        )
        assert watching.follow(self.problems, [stale], self.now, CLEAR) == watching.follow(
            self.problems, [], self.now, CLEAR
        )
        stands = FollowedIncident(incident_id=incident_id, run_id=run_id, state=state, status=status)
        self.problems = watching.follow(self.problems, [stands], self.now, CLEAR)

    def _open(self) -> None:
        for problem in watching.admitted(self.problems, MOST):
            self._may_be_opened(problem)
            self.opened += 1
            incident_id, run_id = watching.incident_id(problem.group), f"run {self.opened}"
            assert incident_id not in self.runs
            self.runs[incident_id] = run_id
            self.problems = watching.opened(self.problems, problem, run_id, self.now)

    # -- what has to hold ---------------------------------------------------------------------------------------

    def _may_be_opened(self, problem: Problem) -> None:
        region, service = place = place_of(problem)
        assert not [
            each for each in self.problems if each.running and each.group.region == region and service in each.services
        ]
        if place not in self.closed:
            return
        ending, closed_at = self.closed[place]
        if ending in watching.RECOVERED and max(began(problem.group)) > closed_at:
            return
        # It ended and was left to people: unless it was out of sight for long enough, it still is.
        seen = self.seen[place]
        since_then = [max((at for at in seen if at <= closed_at), default=closed_at)]
        since_then += [at for at in seen if at > closed_at]
        assert max((later - earlier for earlier, later in pairwise(since_then)), default=timedelta(0)) > CLEAR

    def _every_group_has_its_problem(self) -> None:
        for each in self.groups:
            (problem,) = (p for p in self.problems if p.group.region == each.region and each.service in p.services)
            assert problem.seen_at == self.now
            if problem.ending in watching.RECOVERED:
                assert problem.closed_at is not None
                assert min(began(each)) <= problem.closed_at

    @invariant()
    def no_more_run_than_are_admitted(self) -> None:
        running = [problem for problem in self.problems if problem.running]
        assert len(running) <= MOST
        assert {problem.incident_id for problem in running} == set(self.runs)

    @invariant()
    def no_service_is_in_two_problems(self) -> None:
        everything = [(each.group.region, service) for each in self.problems for service in each.services]
        assert len(everything) == len(set(everything))
        assert all(each.group.service in each.services for each in self.problems if each.ending is None)


def place_of(problem: Problem) -> Place:
    return problem.group.region, problem.group.service


def began(group: AlertGroup) -> list[datetime]:
    """Since when the figures are out of range of the service where the group begins."""
    return [each.since for each in group.sightings if each.symptom.service == group.service]


def covered(problems: list[Problem]) -> set[Place]:
    return {(each.group.region, service) for each in problems for service in each.services}


TestShift = Shift.TestCase
TestShift.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def seen(*broken: Sighting) -> tuple[AlertGroup, ...]:
    return group(broken, TOPOLOGY, CRITICAL)


def after(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def errors(service: str, since: datetime = BEGIN) -> Sighting:
    return sighting(("north", service), Trouble.ERRORS, since)


def opened(problems: list[Problem], now: datetime) -> list[Problem]:
    for problem in watching.admitted(problems, MOST):
        problems = watching.opened(problems, problem, "run", now)
    return problems


def told(problems: list[Problem], state: IncidentState, status: str, now: datetime) -> list[Problem]:
    stands = [
        FollowedIncident(incident_id=each.incident_id, run_id="run", state=state, status=status)
        for each in problems
        if each.incident_id
    ]
    return watching.follow(problems, stands, now, CLEAR)


def test_what_an_incident_was_cut_off_from_is_opened_again_only_while_it_is_in_sight() -> None:
    problems = opened(watching.look([], seen(errors("order")), after(0), CLEAR), after(0))
    still = told(problems, IncidentState.CUT_OFF, "terminated", after(30))
    assert [each.services for each in watching.admitted(still, MOST)] == [("order",)]
    assert told(problems, IncidentState.CUT_OFF, "terminated", after(100)) == []


def test_two_that_turn_out_to_be_one_moment_are_one_problem_before_the_second_has_an_incident() -> None:
    apart = watching.look([], seen(errors("mail"), errors("stock")), after(0), CLEAR)
    (first, _) = watching.admitted(apart, 2)
    problems = watching.opened(apart, first, "run", after(0))
    joined = seen(errors("mail"), errors("payment"), errors("order"), errors("stock"))
    (one,) = watching.look(problems, joined, after(30), CLEAR)
    assert one.running
    assert set(one.services) == {"mail", "payment", "order", "stock"}


def test_a_problem_that_waits_is_as_urgent_as_the_worst_that_a_look_shows_of_it() -> None:
    saturated = sighting(("north", "order"), Trouble.SATURATION, after(-300))
    problems = watching.look([], seen(errors("order"), saturated), after(0), CLEAR)
    assert [each.group.severity for each in problems] == [Severity.HIGH]
    problems = watching.look(problems, seen(saturated), after(30), CLEAR)
    assert [each.group.severity for each in problems] == [Severity.LOW]


def test_what_begins_beside_a_problem_that_has_recovered_is_a_problem_of_its_own() -> None:
    problems = opened(watching.look([], seen(errors("payment")), after(0), CLEAR), after(0))
    problems = told(problems, IncidentState.CLOSED, Ending.SELF_RECOVERED, after(30))
    problems = watching.look(problems, seen(errors("payment"), errors("mail", after(60))), after(60), CLEAR)
    assert [each.group.service for each in watching.admitted(problems, MOST)] == ["mail"]


def test_the_most_severe_comes_first_then_the_one_that_has_waited_longest() -> None:
    low = sighting(("south", "order"), Trouble.SATURATION, BEGIN)
    problems = watching.look([], seen(low, errors("order")), after(0), CLEAR)
    problems = watching.look(problems, seen(low, errors("order"), errors("alone", after(20))), after(30), CLEAR)
    assert [each.group.service for each in watching.admitted(problems, 3)] == ["order", "alone", "order"]
    assert [each.group.region for each in watching.admitted(problems, 3)] == ["north", "north", "south"]
    assert watching.admitted(problems, 0) == []
