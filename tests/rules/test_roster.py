"""Contract: rings nest around a place, `low` is one service and `critical` everything, nobody is on a roster twice, and
a place that nobody knows is the whole estate. The figures are those of the estate's own topology."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estate import topology as estate
from oncall.model.agent import Agent, Specialist
from oncall.model.alert import Severity
from oncall.model.topology import Call, Instance, Topology
from oncall.rules.roster import Ring, first_ring, roster

ESTATE = Topology(
    regions=estate.REGIONS,
    services=tuple(Instance(region=region, service=name) for region in estate.REGIONS for name in estate.SERVICES),
    calls=tuple(
        Call(region=region, caller=caller, callee=callee)
        for region in estate.REGIONS
        for caller, callee in estate.calls()
    ),
)

REGIONS = ("r1", "r2", "r3")
SERVICES = ("a", "b", "c", "d", "e")
instances = st.builds(Instance, region=st.sampled_from(REGIONS), service=st.sampled_from(SERVICES))
# A service may be missing from a region, and calls may go anywhere, round and to what is not there.
calls = st.builds(
    Call, region=st.sampled_from(REGIONS), caller=st.sampled_from(SERVICES), callee=st.sampled_from(SERVICES)
)
topologies = st.builds(
    Topology,
    regions=st.just(REGIONS),
    services=st.lists(instances, min_size=1, unique=True).map(tuple),
    calls=st.lists(calls, unique=True).map(tuple),
)
place_names = st.tuples(st.none() | st.sampled_from((*REGIONS, "mars")), st.none() | st.sampled_from((*SERVICES, "x")))
Place = tuple[str | None, str | None]


def services(agents: tuple[Agent, ...]) -> set[tuple[str, str]]:
    return {(agent.region, agent.service) for agent in agents}


def known(topology: Topology, place: Place) -> bool:
    region, service = place
    return any(
        (region is None or each.region == region) and (service is None or each.service == service)
        for each in topology.services
    )


@given(topologies, place_names)
def test_each_ring_holds_the_one_before_it_and_the_place(topology: Topology, place: Place) -> None:
    rings = [set(roster(topology, ring, *place)) for ring in Ring]
    assert all(inner <= outer for inner, outer in pairwise(rings))
    region, service = place
    for where, what in services(roster(topology, Ring.SERVICE, *place)):
        if known(topology, place):
            assert (region in (None, where), service in (None, what)) == (True, True)


@given(topologies, st.sampled_from(Ring), place_names)
def test_nobody_is_on_it_twice_and_every_specialist_is(topology: Topology, ring: Ring, place: Place) -> None:
    agents = roster(topology, ring, *place)
    assert len(set(agents)) == len(agents) == len(Specialist) * len(services(agents)) > 0
    assert services(agents) <= {(each.region, each.service) for each in topology.services}
    assert roster(topology, ring, *place) == agents


@given(topologies, place_names, st.sampled_from(Severity))
def test_a_place_that_nobody_knows_is_the_whole_estate(topology: Topology, place: Place, severity: Severity) -> None:
    first = first_ring(severity, topology, *place)
    everything = len(Specialist) * len(topology.services)
    if place == (None, None) or not known(topology, place):
        assert first is Ring.ESTATE
    if first is Ring.ESTATE:
        assert len(roster(topology, first, *place)) == everything
    if severity is Severity.CRITICAL:
        assert first is Ring.ESTATE
    if place[1] is None:
        assert first >= Ring.REGION


@given(topologies, place_names)
def test_the_worse_it_is_the_further_it_looks_and_widening_ends(topology: Topology, place: Place) -> None:
    firsts = [first_ring(severity, topology, *place) for severity in Severity]
    assert firsts == sorted(firsts, reverse=True)
    ring = firsts[-1]
    for _ in Ring:
        assert set(roster(topology, ring, *place)) <= set(roster(topology, ring.next, *place))
        ring = ring.next
    assert ring is Ring.ESTATE


PLACES = [(region, service) for region in estate.REGIONS for service in estate.SERVICES]


@pytest.mark.parametrize(("region", "service"), PLACES)
def test_on_the_estate_the_rings_are_what_the_call_graph_says(region: str, service: str) -> None:
    def agents(severity: Severity) -> set[tuple[str, str]]:
        everyone = roster(ESTATE, first_ring(severity, ESTATE, region, service), region, service)
        assert len(everyone) == len(Specialist) * len(services(everyone))
        return services(everyone)

    # From the estate's own list of edges, not from the rule that is tested.
    near = {service} | {b for a, b in estate.calls() if a == service} | {a for a, b in estate.calls() if b == service}
    elsewhere = [other for other in estate.REGIONS if other != region]
    assert agents(Severity.LOW) == {(region, service)}
    assert agents(Severity.MEDIUM) == {(region, each) for each in near}
    assert agents(Severity.HIGH) == {(region, each) for each in estate.SERVICES} | {
        (other, each) for other in elsewhere for each in near
    }
    assert len(agents(Severity.CRITICAL)) == 30


@pytest.mark.parametrize(
    ("service", "low", "medium", "high", "critical"),
    [
        ("api-gateway", 5, 30, 110, 150),
        ("user", 5, 20, 90, 150),
        ("order", 5, 20, 90, 150),
        ("payment", 5, 15, 80, 150),
        ("inventory", 5, 15, 80, 150),
        ("notification", 5, 15, 80, 150),
        ("auth", 5, 10, 70, 150),
        ("analytics", 5, 15, 80, 150),
        ("search", 5, 20, 90, 150),
        ("recommendation", 5, 20, 90, 150),
    ],
)
def test_on_the_estate_these_are_the_numbers(service: str, low: int, medium: int, high: int, critical: int) -> None:
    for region in estate.REGIONS:
        numbers = [
            len(roster(ESTATE, first_ring(severity, ESTATE, region, service), region, service)) for severity in Severity
        ]
        assert numbers == [critical, high, medium, low]
