"""Who investigates: one agent per specialist, service and region, in rings around the place of the alert."""

from enum import IntEnum

from oncall.model.agent import Agent, Specialist
from oncall.model.alert import Severity
from oncall.model.topology import Instance, Topology


class Ring(IntEnum):
    """How far around the alert's place a wave of agents looks. Each ring holds the one before it."""

    SERVICE = 1
    NEIGHBOURS = 2
    REGION = 3
    ESTATE = 4

    @property
    def next(self) -> "Ring":
        """One ring wider; the widest is its own."""
        return Ring(min(self + 1, Ring.ESTATE))


_RING_OF = {
    Severity.LOW: Ring.SERVICE,
    Severity.MEDIUM: Ring.NEIGHBOURS,
    Severity.HIGH: Ring.REGION,
    Severity.CRITICAL: Ring.ESTATE,
}


def first_ring(severity: Severity, topology: Topology, region: str | None, service: str | None) -> Ring:
    """The ring that an alert begins with: its severity's, but the whole estate where no place is given or known, and at
    least the region where only that is given."""
    here = _places(topology, region, service)
    if (region is None and service is None) or not here:
        return Ring.ESTATE
    return max(_RING_OF[severity], Ring.REGION) if service is None else _RING_OF[severity]


def roster(
    topology: Topology, ring: Ring = Ring.ESTATE, region: str | None = None, service: str | None = None
) -> tuple[Agent, ...]:
    """The agents of one ring around a place, in a fixed order.

    SERVICE: the service. NEIGHBOURS: those it calls and those that call it in its region as well. REGION: all of its
    region, and the service with its neighbours in the other regions. ESTATE: everything. A service without a region is
    looked at wherever it runs.
    """
    return tuple(
        Agent(specialist=specialist, service=place.service, region=place.region)
        for place in sorted(_within(topology, ring, region, service), key=lambda place: (place.region, place.service))
        for specialist in Specialist
    )


def _within(topology: Topology, ring: Ring, region: str | None, service: str | None) -> set[Instance]:
    here = _places(topology, region, service)
    if ring is Ring.ESTATE or not here:
        return set(topology.services)
    if ring is Ring.SERVICE:
        return here
    near = here | {other for place in here for other in _neighbours(topology, place)}
    if ring is Ring.NEIGHBOURS:
        return near
    regions = {place.region for place in here}
    names = {place.service for place in near} if service is not None else set()
    return {place for place in topology.services if place.region in regions or place.service in names}


def _places(topology: Topology, region: str | None, service: str | None) -> set[Instance]:
    return {
        place
        for place in topology.services
        if (region is None or place.region == region) and (service is None or place.service == service)
    }


def _neighbours(topology: Topology, place: Instance) -> set[Instance]:
    names = {*topology.callees(place.region, place.service), *topology.callers(place.region, place.service)}
    return {other for other in topology.services if other.region == place.region and other.service in names}
