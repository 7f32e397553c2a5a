"""What belongs together: sightings of one moment that the call graph connects are one alert."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from oncall.model.alert import Severity
from oncall.model.shift import AlertGroup, Sighting, Trouble
from oncall.model.topology import Topology

ONE_MOMENT = timedelta(minutes=2)
"""Onsets this close may be one problem: a cascade takes seconds to reach the front door, and clocks differ."""

# Worst first.
_TROUBLES = tuple(Trouble)
_SEVERITIES = tuple(Severity)


def group(sightings: Iterable[Sighting], topology: Topology, critical_error_percent: float) -> tuple[AlertGroup, ...]:
    """The sightings as alerts, worst first: by severity, trouble, how many services, age and name.

    Each sighting is in exactly one; the order in which they come changes nothing. One where an entrance of the region
    fails `critical_error_percent` of its requests is critical.
    """
    groups = [
        _alert(members, topology, critical_error_percent)
        for members in _connected(sorted(set(sightings), key=_order), topology)
    ]
    return tuple(sorted(groups, key=_urgency))


def _order(sighting: Sighting) -> tuple[object, ...]:
    symptom = sighting.symptom
    return (
        symptom.region,
        symptom.service,
        _TROUBLES.index(sighting.trouble),
        symptom.metric,
        sighting.since,
        repr(sighting),
    )


def _urgency(alert: AlertGroup) -> tuple[object, ...]:
    return (
        _SEVERITIES.index(alert.severity),
        _TROUBLES.index(alert.trouble),
        -len(alert.services),
        alert.since,
        alert.region,
        alert.service,
        repr(alert),
    )


def _connected(sightings: Sequence[Sighting], topology: Topology) -> list[list[Sighting]]:
    """The connected components, each in the order of `sightings`."""
    calls = {(call.region, call.caller, call.callee) for call in topology.calls}

    def together(one: Sighting, other: Sighting) -> bool:
        region, service, beside = one.symptom.region, one.symptom.service, other.symptom.service
        return (
            region == other.symptom.region
            and abs(one.since - other.since) <= ONE_MOMENT
            and (service == beside or bool(calls & {(region, service, beside), (region, beside, service)}))
        )

    components: list[list[Sighting]] = []
    left = list(sightings)
    while left:
        component = [left.pop(0)]
        for one in component:
            joined = [other for other in left if together(one, other)]
            left = [other for other in left if other not in joined]
            component += joined
        components.append(sorted(component, key=_order))
    return components


def _alert(members: Sequence[Sighting], topology: Topology, critical_error_percent: float) -> AlertGroup:
    region = members[0].symptom.region
    services = tuple(sorted({sighting.symptom.service for sighting in members}))
    near = {
        other
        for service in services
        for other in (*topology.callees(region, service), *topology.callers(region, service))
    }
    return AlertGroup(
        region=region,
        service=_beginning(members, services, topology),
        services=services,
        around=tuple(sorted(near - set(services))),
        trouble=min((sighting.trouble for sighting in members), key=_TROUBLES.index),
        severity=_severity(members, topology.entrances(region), critical_error_percent),
        since=min(sighting.since for sighting in members),
        sightings=tuple(members),
    )


def _beginning(members: Sequence[Sighting], services: tuple[str, ...], topology: Topology) -> str:
    """The affected service none of whose callees is affected; the worst of several, and of all where calls go round."""
    region = members[0].symptom.region
    deepest = [
        service for service in services if not set(topology.callees(region, service)) & set(services) - {service}
    ]
    return min(
        (sighting for sighting in members if sighting.symptom.service in (deepest or services)), key=_badness
    ).symptom.service


def _badness(sighting: Sighting) -> tuple[object, ...]:
    symptom = sighting.symptom
    if symptom.before is None or symptom.threshold is None:
        beyond = 0.0
    else:
        beyond = abs(symptom.before - symptom.threshold) / max(abs(symptom.threshold), 1e-9)
    failing = sighting.error_percent or 0.0
    return (_TROUBLES.index(sighting.trouble), -failing, -beyond, symptom.service)


def _severity(members: Sequence[Sighting], entrances: tuple[str, ...], critical_error_percent: float) -> Severity:
    """How much it hurts those who use it. Saturation alone hurts nobody yet, wherever it is."""
    hurting = [sighting for sighting in members if sighting.trouble is not Trouble.SATURATION]
    at_the_door = [sighting for sighting in hurting if sighting.symptom.service in entrances]
    if any((sighting.error_percent or 0.0) >= critical_error_percent for sighting in at_the_door):
        return Severity.CRITICAL
    if at_the_door or any(sighting.trouble is Trouble.ERRORS for sighting in hurting):
        return Severity.HIGH
    return Severity.MEDIUM if hurting else Severity.LOW
