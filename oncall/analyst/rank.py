"""Ranking suspects along the call graph: blame the deepest changed callee, not the loudest caller.

A symptom of a service is explained by a callee to the extent that the callee suffers too, or that the service itself
measured its calls there going wrong. What a callee explains is not evidence against the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from oncall.analyst.places import Key, Place
from oncall.analyst.thresholds import NOTABLE
from oncall.model.agent import Specialist
from oncall.model.topology import Topology

# When several subjects of one service stand out alike, the one earlier in this list is the nearer cause: a full
# pool makes calls slow and writes errors, while errors in a log fill no pool.
PRECEDENCE = (Specialist.DATABASE, Specialist.CACHE, Specialist.RESOURCES, Specialist.NETWORK, Specialist.LOGS)
_ALIKE = 0.5
_EXPLAINED_WEIGHT = 0.3


@dataclass(frozen=True)
class Standing:
    """One place's standing: `score` 0 and up, the specialist whose evidence is the nearest cause, and how much of its
    symptom (0 to 1) its callees explain."""

    place: Place
    score: float
    specialist: Specialist
    explained: float


def nearest_cause(place: Place) -> Specialist:
    """The specialist with the strongest evidence; among those about as strong that are notable, the nearer cause."""
    strengths = {specialist: place.strongest(specialist) for specialist in PRECEDENCE}
    best = max(strengths.values())
    if best < NOTABLE:
        # Failing or slow, and no subject of its own shows why: the code is the nearest guess.
        return Specialist.LOGS
    # A figure that strays a little has no precedence over errors that have only just begun to be written.
    enough = max(_ALIKE * best, NOTABLE)
    return next(specialist for specialist in PRECEDENCE if strengths[specialist] >= enough)


def explained(place: Place, places: Mapping[Key, Place], topology: Topology) -> float:
    """The share, 0 to 1, of the place's symptom that its callees account for."""
    if not place.suffering:
        return 0.0
    most = 0.0
    for callee in topology.callees(place.region, place.service):
        below = places.get((place.region, callee))
        link = place.links.get(callee)
        most = max(most, below.suffering if below else 0.0, link.score if link else 0.0)
    return min(1.0, most / place.suffering)


def standings(places: Mapping[Key, Place], topology: Topology) -> tuple[Standing, ...]:
    """Every place, most suspect first; ties by name, so that the order never depends on arrival."""
    found = []
    for place in places.values():
        share = explained(place, places, topology)
        strongest = max((place.strongest(specialist) for specialist in PRECEDENCE), default=0.0)
        free = place.suffering + strongest
        bound = _EXPLAINED_WEIGHT * strongest
        found.append(Standing(place, (1 - share) * free + share * bound, nearest_cause(place), share))
    return tuple(sorted(found, key=lambda each: (-each.score, each.place.region, each.place.service)))
