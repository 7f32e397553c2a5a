"""Actions, proposed only from what probes saw: nothing here knows a flag, a service or a statement by name.

`grounded` works every parameter out again from the cited observations; an action that does not match is dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from oncall.analyst.places import Key, Place
from oncall.analyst.runaways import Runaway, runaways
from oncall.config import References, in_region
from oncall.model.action import Action, DisableFlag, KillQueries, Risk, target_of
from oncall.model.diagnosis import RootCause
from oncall.model.observation import Observation

# A change this long before the first symptom is no longer news; one this long after it cannot be its cause. The
# second is not zero: readings are of intervals, and an instance learns of a flag before or after one ends.
_BEFORE = timedelta(minutes=5)
_AFTER = timedelta(seconds=6)
# Flags that an instance learned together at its start were not changed then.
_TOGETHER = timedelta(seconds=2)


@dataclass(frozen=True)
class FlagChange:
    """A flag that an instance holds on, and when it learned of this version."""

    key: str
    version: int
    since: datetime


def changes(observation: Observation) -> tuple[FlagChange, ...]:
    """The flags in a value of `check_instance_health` that are on and changed while the instance ran, newest first."""
    if observation.tool != "check_instance_health" or observation.reproducible:
        return ()
    found: dict[tuple[str, int], FlagChange] = {}
    for instance in observation.value["instances"]:
        flags = instance["flags"] or {}
        times = {key: _time(flag["since"]) for key, flag in flags.items()}
        known = [time for time in (*times.values(), _time(instance["started_at"])) if time is not None]
        learned = min((time for time in times.values() if time is not None), default=None)
        if len(times) == 1:
            learned = min(known, default=None)
        for key, flag in flags.items():
            since = times[key]
            if flag["value"] and since is not None and learned is not None and since > learned + _TOGETHER:
                change = FlagChange(key, flag["version"], since)
                earlier = found.get((key, flag["version"]))
                found[key, flag["version"]] = change if earlier is None or since < earlier.since else earlier
    return tuple(sorted(found.values(), key=lambda change: (change.since, change.key), reverse=True))


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


def near(change: FlagChange, onset: datetime) -> bool:
    """Whether a change lies where a cause of symptoms that began at `onset` would."""
    return onset - _BEFORE <= change.since <= onset + _AFTER


def propose(root: RootCause, place: Place, places: Mapping[Key, Place], references: References) -> tuple[Action, ...]:
    """The actions against `root`, in the order in which they must run: the flag first, because queries that it starts
    come back for as long as it is on."""
    proposed = [*_flag(root, place, references), *_kills(root, place, places, references)]
    return tuple(
        action.model_copy(update={"action_id": f"act-{index}-{action.parameters.type}"})
        for index, action in enumerate((action for action in proposed if grounded(action, place.observations)), start=1)
    )


def _flag(root: RootCause, place: Place, references: References) -> list[Action]:
    for observation in place.observations:
        for change in changes(observation):
            if fitting := [onset for onset in place.onsets if near(change, onset)]:
                onset = min(fitting)
                write = references.flags_write
                disable = DisableFlag(region=root.region, flag=change.key, expected_version=change.version)
                return [
                    Action(
                        action_id="",
                        parameters=disable,
                        target=target_of(disable),
                        risk=Risk.LOW,
                        reversible=True,
                        references=(f"{write}/credential", f"{write}/server"),
                        reason=(
                            f"{root.service} in {root.region} learned at {change.since:%H:%M:%S} that this flag is on"
                            f" (version {change.version}); its symptoms began at {onset:%H:%M:%S}"
                        ),
                        observations=(observation.id, *((place.symptom.observation,) if place.symptom else ())),
                        manual_steps=(
                            f"In the flag service, turn {change.key} off in {root.region}; it should be at version"
                            f" {change.version}.",
                            f"Wait until every instance of {root.service} in {root.region} reports the new version.",
                        ),
                    )
                ]
    return []


def _by_hand(runaway: Runaway) -> str:
    return " ".join(
        (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
            f"WHERE datname = {_quoted(runaway.database)} AND usename = {_quoted(runaway.role)}",
            f"AND query_id = {runaway.query_id} AND state = 'active'",
            f"AND now() - query_start > interval '{runaway.min_age_s} seconds';",
        )
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _statements(observations: Sequence[Observation]) -> list[tuple[Observation, Runaway]]:
    return [
        (observation, runaway)
        for observation in observations
        if observation.tool == "query_slow_queries" and not observation.reproducible
        for runaway in runaways(observation.value)
    ]


def _kills(root: RootCause, place: Place, places: Mapping[Key, Place], references: References) -> list[Action]:
    usual_elsewhere = {
        runaway.text
        for key, other in places.items()
        if key[1] == root.service and key[0] != root.region
        for _, runaway in _statements(other.observations)
    }
    write = in_region(references.database_write, root.region)
    doubt = "" if _flags_seen(place) else "; whether a flag starts it could not be seen, so it may come back"
    found = []
    for observation, runaway in _statements(place.observations):
        # What the other regions run just as long is this service's habit, not its fault.
        if runaway.text in usual_elsewhere:
            continue
        kill = KillQueries(
            region=root.region,
            database=runaway.database,
            role=runaway.role,
            query_id=runaway.query_id,
            min_age_s=runaway.min_age_s,
            max_count=runaway.max_count,
        )
        found.append(
            Action(
                action_id="",
                parameters=kill,
                target=target_of(kill),
                risk=Risk.MEDIUM,
                reversible=False,
                references=tuple(f"{write}/{part}" for part in ("username", "password", "server")),
                reason=(
                    f"{len(runaway.ages_s)} executions of one statement hold connections of {runaway.database} in"
                    f" {root.region} for up to {runaway.ages_s[0]:.1f} s; no other region runs it like that{doubt}"
                ),
                observations=(observation.id,),
                manual_steps=(
                    "First make sure that nothing starts the statement again (see the action before this one).",
                    f"On the {root.region} cluster: {_by_hand(runaway)}",
                ),
            )
        )
    return found


def _flags_seen(place: Place) -> bool:
    return any(
        instance["flags"] is not None
        for observation in place.observations
        if observation.tool == "check_instance_health" and not observation.reproducible
        for instance in observation.value["instances"]
    )


def grounded(action: Action, observations: Sequence[Observation]) -> bool:
    """Whether every parameter of `action` follows from one of the observations that it cites."""
    cited = [each for each in observations if each.id in action.observations]
    parameters = action.parameters
    if action.target != target_of(parameters):
        return False
    if isinstance(parameters, DisableFlag):
        return any(
            observation.arguments.get("region") == parameters.region
            and any(
                (change.key, change.version) == (parameters.flag, parameters.expected_version)
                for change in changes(observation)
            )
            for observation in cited
        )
    return any(
        observation.arguments.get("region") == parameters.region
        and (runaway.database, runaway.role, runaway.query_id, runaway.min_age_s, runaway.max_count)
        == (
            parameters.database,
            parameters.role,
            parameters.query_id,
            parameters.min_age_s,
            parameters.max_count,
        )
        for observation, runaway in _statements(cited)
    )
