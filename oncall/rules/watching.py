"""What a shift makes of what it sees: which alerts are one problem, which problem is an incident, and whose turn it is.

A problem is queued until it has an incident, and is remembered after that until it has been out of sight for long
enough: an incident that ended without recovery has been handed to people, and opening it again with every look would
only bury them.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from oncall.model.alert import Alert, Severity, fingerprint
from oncall.model.incident import Ending
from oncall.model.names import incident_workflow_id
from oncall.model.shift import AlertGroup, FollowedIncident, IncidentState, Problem
from oncall.rules.grouping import ONE_MOMENT

RECOVERED = frozenset({Ending.RESOLVED, Ending.SELF_RECOVERED, Ending.NO_FAULT})
"""Endings after which the same trouble is a new one at once."""

_URGENCY = {severity: rank for rank, severity in enumerate(Severity)}


def alert_of(group: AlertGroup) -> Alert:
    """The alert that opens an incident: by the labels of one that a person opens there, so that both are one."""
    labels = {
        "alertname": str(group.trouble),
        "severity": str(group.severity),
        "region": group.region,
        "service": group.service,
    }
    return Alert(
        labels=labels,
        annotations={"summary": summary(group)},
        starts_at=group.since,
        fingerprint=fingerprint(labels),
    )


def incident_id(group: AlertGroup) -> str:
    """The id of the incident that the group's alert opens or joins."""
    return incident_workflow_id(alert_of(group).fingerprint)


def summary(group: AlertGroup) -> str:
    """One line for people: the region, and the first figure of each service with its limit."""
    shown: dict[str, str] = {}
    for symptom in (sighting.symptom for sighting in group.sightings):
        level = "unknown" if symptom.before is None else f"{symptom.before:.4g}"
        limit = "" if symptom.threshold is None else f" (limit {symptom.threshold:.4g})"
        shown.setdefault(symptom.service, f"{symptom.service} {symptom.metric} {level}{limit}")
    return f"{group.region}: {', '.join(shown.values())}"


def look(problems: Sequence[Problem], groups: Iterable[AlertGroup], now: datetime, clear: timedelta) -> list[Problem]:
    """The problems after a look that showed `groups`: those seen again, the new ones, and without those that are over.

    One that an incident works on is kept whatever is seen; how that ends is for the incident to measure.
    """
    known = list(problems)
    for group in groups:
        at = next((i for i, problem in enumerate(known) if _same(problem, group)), None)
        if at is not None and _again(known[at], group, now, clear):
            # What ended has come back: a problem of its own, and the one before is history.
            del known[at]
            at = None
        if at is None:
            known.append(Problem(group=group, services=group.services, noticed_at=now, seen_at=now))
        else:
            known[at] = _seen(known[at], group, now)
    return [problem for problem in known if problem.running or now - problem.seen_at <= clear]


def follow(problems: Sequence[Problem], followed: Iterable[FollowedIncident], now: datetime) -> list[Problem]:
    """The problems once it is known how their incidents stand. One that was cut off from outside, without a report,
    leaves its problem without an incident: if it is still there, it gets another."""
    stands = {each.incident_id: each for each in followed}
    return [_followed(problem, stands.get(problem.incident_id or ""), now) for problem in problems]


def admitted(problems: Sequence[Problem], most: int) -> list[Problem]:
    """The queued problems that get an incident now: at most `most` run at once, the most severe first, then the one
    that has waited longest."""
    places = most - sum(problem.running for problem in problems)
    waiting = sorted(queued(problems), key=lambda problem: (_URGENCY[problem.group.severity], problem.noticed_at))
    return waiting[: max(0, places)]


def queued(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that wait for a place."""
    return [problem for problem in problems if problem.incident_id is None]


def opened(problems: Sequence[Problem], one: Problem, run_id: str | None, now: datetime) -> list[Problem]:
    """The problems once `one` has its incident; `run_id` is None when it joined one that ran already."""
    update = {"incident_id": incident_id(one.group), "run_id": run_id, "opened_at": now}
    return [problem.model_copy(update=update) if problem is one else problem for problem in problems]


def _same(problem: Problem, group: AlertGroup) -> bool:
    if problem.group.region != group.region:
        return False
    if group.service in problem.services:
        return True
    near = abs(group.since - problem.group.since) <= ONE_MOMENT
    return near and not {*group.services, *group.around}.isdisjoint(problem.services)


def _again(problem: Problem, group: AlertGroup, now: datetime, clear: timedelta) -> bool:
    """Whether `group` is a re-occurrence of a problem whose incident has ended."""
    if problem.ending is None or problem.closed_at is None or group.since <= problem.closed_at:
        return False
    return problem.ending in RECOVERED or now - problem.seen_at > clear


def _seen(problem: Problem, group: AlertGroup, now: datetime) -> Problem:
    """The problem, seen again. It grows while it is young: later, what it touches may be another one's."""
    services = problem.services
    if abs(group.since - problem.group.since) <= ONE_MOMENT:
        services = tuple(dict.fromkeys((*services, *group.services)))
    # While it waits for a place, the newest look says how urgent it is.
    newest = group if problem.incident_id is None else problem.group
    return problem.model_copy(update={"services": services, "seen_at": now, "group": newest})


def _followed(problem: Problem, stands: FollowedIncident | None, now: datetime) -> Problem:
    if stands is None or not problem.running or (problem.run_id is not None and stands.run_id != problem.run_id):
        return problem
    match stands.state:
        case IncidentState.RUNNING:
            return problem
        case IncidentState.CLOSED:
            return problem.model_copy(update={"ending": stands.status, "closed_at": now})
        case IncidentState.CUT_OFF:
            return problem.model_copy(update={"incident_id": None, "run_id": None, "opened_at": None})
