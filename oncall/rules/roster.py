"""Who investigates: one agent per specialist, service and region."""

from oncall.model.agent import Agent, Specialist
from oncall.model.topology import Topology


def roster(topology: Topology) -> tuple[Agent, ...]:
    """The whole estate's roster, in a fixed order: regions × services × specialists."""
    return tuple(
        Agent(specialist=specialist, service=place.service, region=place.region)
        for place in sorted(topology.services, key=lambda place: (place.region, place.service))
        for specialist in Specialist
    )
