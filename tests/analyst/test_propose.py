"""Contract: an action is proposed only when a probe saw its every parameter; the flag comes before the kill; what is on
as a habit, changed at another time, or runs long everywhere is left alone."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.analyst.evidence import Evidence
from oncall.analyst.places import Key, Place
from oncall.analyst.propose import grounded, propose
from oncall.analyst.runaways import long_running, runaways
from oncall.config import References
from oncall.model.action import Action, DisableFlag, KillQueries
from oncall.model.agent import Specialist
from oncall.model.diagnosis import RootCause
from oncall.model.observation import Observation
from tests.analyst.worlds import NOW

ROOT = RootCause(
    region="north", service="back", specialist=Specialist.DATABASE, cause="statements run away", confidence=0.9
)
REFERENCES = References(database_write="op://W/db/{region}", flags_write="op://W/flags")


def at(seconds: float) -> str:
    """A time relative to the onset, which is NOW."""
    return (NOW + timedelta(seconds=seconds)).isoformat()


def observation(tool: str, value: Any, region: str = "north", name: str = "obs-1") -> Observation:
    return Observation(
        id=name,
        agent="a",
        tool=tool,
        arguments={"region": region, "service": "back"},
        taken_at=NOW,
        value=value,
        sha256="0" * 64,
        reproducible=False,
    )


def health(flags: dict[str, tuple[bool, int, float]], started: float = -3600, region: str = "north") -> Observation:
    held = {key: {"value": on, "version": version, "since": at(since)} for key, (on, version, since) in flags.items()}
    instance = {"name": "back-1", "started_at": at(started), "status": "running", "flags": held}
    return observation("check_instance_health", {"instances": [instance]}, region, "obs-flags")


def slow(ages: list[float], query_id: str | None = "-42", mean_ms: float = 0.0, region: str = "north") -> Observation:
    active = [
        {"query_id": query_id, "role": "app", "database": "back", "age_s": age, "text": "SELECT slow"} for age in ages
    ]
    totals = [{"query_id": query_id, "mean_ms": mean_ms}] if mean_ms else []
    value = {"database": "back", "active": active, "statements": totals}
    return observation("query_slow_queries", value, region, f"obs-slow-{region}")


def place(*observations: Observation, region: str = "north") -> Place:
    return Place(
        region,
        "back",
        symptom=Evidence(50.0, "errors", "obs-symptom"),
        onsets=[NOW - timedelta(seconds=90), NOW],
        observations=list(observations),
    )


def actions(*observations: Observation, elsewhere: Place | None = None) -> tuple[Action, ...]:
    here = place(*observations)
    places: dict[Key, Place] = {("north", "back"): here}
    if elsewhere is not None:
        places[elsewhere.region, "back"] = elsewhere
    return propose(ROOT, here, places, REFERENCES)


HABITS = {"old-on": (True, 3, -3600.0), "old-off": (False, 4, -3600.0)}


def test_the_flag_that_changed_before_the_symptoms_goes_first_then_the_kill() -> None:
    flag, kill = actions(health({**HABITS, "fresh": (True, 7, -3.0)}), slow([9.0, 5.0, 2.0]))
    assert flag.parameters == DisableFlag(region="north", flag="fresh", expected_version=7)
    assert (flag.action_id, flag.target.kind, flag.target.identity) == ("act-1-disable_flag", "flag", "north/fresh")
    assert flag.references == ("op://W/flags/credential", "op://W/flags/server")
    assert kill.parameters == KillQueries(
        region="north", database="back", role="app", query_id="-42", min_age_s=1, max_count=6
    )
    assert (kill.action_id, kill.target.identity) == ("act-2-kill_queries", "north/back/-42")
    assert kill.references == ("op://W/db/north/username", "op://W/db/north/password", "op://W/db/north/server")
    assert flag.manual_steps
    assert kill.manual_steps


@pytest.mark.parametrize(
    "flags",
    [
        HABITS,
        {**HABITS, "turned-off": (False, 7, -3.0)},
        {**HABITS, "long-ago": (True, 7, -1800.0)},
        {**HABITS, "afterwards": (True, 7, 20.0), "afterwards-too": (True, 7, 9.0)},
        {"first": (True, 1, -3.0), "second": (True, 2, -2.9)},
    ],
    ids=["habits", "turned off", "long before", "after the symptoms", "learned together at the start"],
)
def test_other_flags_are_left_alone(flags: dict[str, tuple[bool, int, float]]) -> None:
    assert actions(health(flags)) == ()


def test_of_two_that_changed_the_newest_is_taken() -> None:
    [flag] = actions(health({**HABITS, "earlier": (True, 2, -60.0), "later": (True, 5, -2.0)}))
    assert isinstance(flag.parameters, DisableFlag)
    assert flag.parameters.flag == "later"


def test_an_instance_whose_flags_are_unknown_yields_nothing() -> None:
    broken = {"instances": [{"name": "x", "started_at": at(-9), "status": "running", "flags": None}]}
    assert actions(observation("check_instance_health", broken)) == ()


def test_a_kill_says_when_the_flags_could_not_be_seen() -> None:
    broken = {"instances": [{"name": "x", "started_at": at(-9), "status": "running", "flags": None}]}
    [blind] = actions(observation("check_instance_health", broken, name="obs-2"), slow([9.0, 5.0]))
    [seeing] = actions(health(HABITS), slow([9.0, 5.0]))
    assert "could not be seen" in blind.reason
    assert "could not be seen" not in seeing.reason


@pytest.mark.parametrize(
    "seen",
    [slow([]), slow([9.0]), slow([0.9, 0.8]), slow([9.0, 8.0], query_id=None), slow([9.0, 8.0], mean_ms=5000)],
    ids=["none", "a single one", "young", "without an id", "usually as slow"],
)
def test_what_does_not_run_away_is_not_killed(seen: Observation) -> None:
    assert actions(seen) == ()


def test_a_statement_that_runs_long_elsewhere_too_is_not_killed() -> None:
    other = place(slow([7.0, 6.0], region="south"), region="south")
    assert actions(slow([9.0, 8.0]), elsewhere=other) == ()
    assert len(actions(slow([9.0, 8.0]), elsewhere=place(slow([], region="south"), region="south"))) == 1


def test_the_minimum_age_is_ten_times_the_usual_one() -> None:
    [kill] = actions(slow([60.0, 50.0], mean_ms=1500))
    assert isinstance(kill.parameters, KillQueries)
    assert kill.parameters.min_age_s == 15


def test_runaways_are_counted_over_several_looks() -> None:
    assert long_running([slow([9.0, 8.0]).value, slow([3.0, 2.0, 0.6]).value]) == 4
    assert runaways({}) == ()


FLAG, KILL = actions(health({**HABITS, "fresh": (True, 7, -3.0)}), slow([9.0, 5.0, 2.0]))
SEEN = [health({**HABITS, "fresh": (True, 7, -3.0)}), slow([9.0, 5.0, 2.0])]


@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "region": st.sampled_from(["south", ""]),
            "flag": st.text(max_size=8).filter(lambda text: text != "fresh"),
            "expected_version": st.integers(0, 100).filter(lambda version: version != 7),
        },
    ).filter(bool)
)
def test_a_flag_action_with_any_parameter_changed_is_not_grounded(changed: dict[str, Any]) -> None:
    assert grounded(FLAG, SEEN)
    assert not grounded(FLAG.model_copy(update={"parameters": FLAG.parameters.model_copy(update=changed)}), SEEN)


@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "region": st.sampled_from(["south", ""]),
            "database": st.sampled_from(["front", "postgres"]),
            "role": st.sampled_from(["postgres", ""]),
            "query_id": st.integers().map(str).filter(lambda text: text != "-42"),
            "min_age_s": st.integers(2, 100),
            "max_count": st.integers(1, 100).filter(lambda count: count != 6),
        },
    ).filter(bool)
)
def test_a_kill_with_any_parameter_changed_is_not_grounded(changed: dict[str, Any]) -> None:
    assert grounded(KILL, SEEN)
    assert not grounded(KILL.model_copy(update={"parameters": KILL.parameters.model_copy(update=changed)}), SEEN)


def test_an_action_that_cites_nothing_or_something_else_is_not_grounded() -> None:
    for action in (FLAG, KILL):
        assert not grounded(action, [])
        assert not grounded(action.model_copy(update={"observations": ()}), SEEN)
        assert not grounded(
            action.model_copy(update={"target": action.target.model_copy(update={"identity": "x"})}), SEEN
        )
