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

    One that an incident works on is kept whatever is seen; how that ends is for the incident to measure. No service of
    a region is in two problems, so each group has one that it belongs to. `clear` must be longer than the pause between
    looks: what every look shows has not been out of sight.
    """
    known = list(problems)
    for group in sorted(groups, key=_worst_first):
        known = _sighted(known, group, now, clear)
    return [problem for problem in known if problem.running or now - problem.seen_at <= clear]


def follow(
    problems: Sequence[Problem], followed: Iterable[FollowedIncident], now: datetime, clear: timedelta
) -> list[Problem]:
    """The problems once it is known how their incidents stand. One that was cut off from outside, without a report,
    leaves its problem without an incident: if it is still there, it gets another."""
    stands = {each.incident_id: each for each in followed}
    told = [_followed(problem, stands.get(problem.incident_id or ""), now) for problem in problems]
    return [problem for problem in told if problem.incident_id is not None or now - problem.seen_at <= clear]


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


def _sighted(problems: Sequence[Problem], group: AlertGroup, now: datetime, clear: timedelta) -> list[Problem]:
    """The problems once `group` has been seen."""
    known = _released(problems, group, now, clear)
    at = _belongs_to(known, group)
    if at is None:
        known.append(Problem(group=group, services=(group.service,), noticed_at=now, seen_at=now))
        at = len(known) - 1
    one = known[at]
    swallowed: list[int] = []
    if _one_moment(one, group):
        # It grows while it is young, by what is nobody else's and by what waited for an incident of its own.
        if one.ending is None:
            swallowed = [i for i, other in enumerate(known) if i != at and _waits_within(other, group)]
        one = _grown(one, group, [known[i] for i in swallowed], _without(known, {at, *swallowed}))
    known = [other.model_copy(update={"seen_at": now}) if _in_sight(other, group) else other for other in known]
    known[at] = _seen(one, group, now)
    return _without(known, set(swallowed))


def _released(problems: Iterable[Problem], group: AlertGroup, now: datetime, clear: timedelta) -> list[Problem]:
    """The problems without what comes back with `group`: where one has ended, what begins anew is not its own."""
    kept = []
    for problem in problems:
        if _region(problem) == group.region and (problem.ending in RECOVERED or now - problem.seen_at > clear):
            left = tuple(each for each in problem.services if not _after(problem, group, each))
            kept += [problem.model_copy(update={"services": left})] if left else []
        else:
            kept.append(problem)
    return kept


def _grown(one: Problem, group: AlertGroup, swallowed: Sequence[Problem], others: Sequence[Problem]) -> Problem:
    elsewhere = {service for other in others if _region(other) == group.region for service in other.services}
    reached = [service for service in group.services if service not in elsewhere]
    reached += [service for other in swallowed for service in other.services]
    noticed = one.noticed_at
    if one.incident_id is None:
        noticed = min([noticed, *(other.noticed_at for other in swallowed)])
    return one.model_copy(update={"services": tuple(dict.fromkeys((*one.services, *reached))), "noticed_at": noticed})


def _without(problems: Sequence[Problem], places: set[int]) -> list[Problem]:
    return [problem for i, problem in enumerate(problems) if i not in places]


def _in_sight(problem: Problem, group: AlertGroup) -> bool:
    """Whether the group shows any of the problem's services."""
    return _region(problem) == group.region and not set(group.services).isdisjoint(problem.services)


def _belongs_to(problems: Sequence[Problem], group: AlertGroup) -> int | None:
    """Which problem the group is: the one that has its service, else one of the same moment beside it."""
    near = {*group.services, *group.around}
    places = [i for i, problem in enumerate(problems) if _region(problem) == group.region]
    for i in places:
        if group.service in problems[i].services:
            return i
    beside = [i for i in places if _one_moment(problems[i], group) and not near.isdisjoint(problems[i].services)]
    # One that is being worked on comes before one that waits, and that before one that is over.
    beside.sort(key=lambda i: (problems[i].ending is not None, problems[i].incident_id is None))
    return next((i for i in beside if not _after(problems[i], group, group.service)), None)


def _waits_within(problem: Problem, group: AlertGroup) -> bool:
    """Whether the problem waits for a place, and the group shows where it began."""
    here = problem.incident_id is None and _region(problem) == group.region
    return here and problem.group.service in group.services


def _region(problem: Problem) -> str:
    return problem.group.region


def _one_moment(problem: Problem, group: AlertGroup) -> bool:
    return abs(group.since - problem.group.since) <= ONE_MOMENT


def _after(problem: Problem, group: AlertGroup, service: str) -> bool:
    """Whether `group` shows that service, and all of it began after the problem's incident had ended."""
    began = [sighting.since for sighting in group.sightings if sighting.symptom.service == service]
    return problem.closed_at is not None and bool(began) and min(began) > problem.closed_at


def _seen(problem: Problem, group: AlertGroup, now: datetime) -> Problem:
    """The problem, seen again. While it waits for a place, the worst that the newest look shows says how urgent it is
    and where its incident begins."""
    newest = group if problem.incident_id is None and problem.seen_at < now else problem.group
    return problem.model_copy(update={"seen_at": now, "group": newest})


def _worst_first(group: AlertGroup) -> tuple[int, datetime, str, str]:
    return _URGENCY[group.severity], group.since, group.region, group.service


def _followed(problem: Problem, stands: FollowedIncident | None, now: datetime) -> Problem:
    if stands is None or not problem.running or (problem.run_id is not None and stands.run_id != problem.run_id):
        return problem
    match stands.state:
        case IncidentState.RUNNING:
            return problem
        case IncidentState.CLOSED:
            return problem.model_copy(update={"ending": stands.status, "closed_at": stands.closed_at or now})
        case IncidentState.CUT_OFF:
            return problem.model_copy(update={"incident_id": None, "run_id": None, "opened_at": None})
