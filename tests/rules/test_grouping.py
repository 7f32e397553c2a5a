"""Contract: what the call graph connects in one region at one moment is one alert; it names where it begins, how bad it
is and what is around it, whatever the order in which its sightings come."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall.model.alert import Severity
from oncall.model.shift import AlertGroup, Sighting, Trouble
from oncall.model.symptom import Symptom
from oncall.model.topology import Call, Instance, Topology
from oncall.rules.grouping import ONE_MOMENT, group

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
CRITICAL = 20.0
REGIONS = ("north", "south")
# door → order → payment → mail, door → search → stock, order → stock; alone calls nobody and nobody calls it.
CALLS = (
    ("door", "order"),
    ("door", "search"),
    ("order", "payment"),
    ("order", "stock"),
    ("payment", "mail"),
    ("search", "stock"),
)
SERVICES = ("door", "order", "payment", "mail", "search", "stock", "alone")
TOPOLOGY = Topology(
    regions=REGIONS,
    services=tuple(Instance(region=region, service=service) for region in REGIONS for service in SERVICES),
    calls=tuple(Call(region=region, caller=caller, callee=callee) for region in REGIONS for caller, callee in CALLS),
)


def errors(service: str, percent: float = 50, region: str = "north", age_s: float = 10) -> Sighting:
    return sighting(Trouble.ERRORS, service, "error_rate(%)", percent, 5, region, age_s, percent)


def latency(service: str, region: str = "north", ms: float = 800) -> Sighting:
    return sighting(Trouble.LATENCY, service, "latency_p95(ms)", ms, 120, region)


def saturation(service: str, region: str = "north") -> Sighting:
    return sighting(Trouble.SATURATION, service, "cpu(%)", 97, 90, region)


def sighting(
    trouble: Trouble,
    service: str,
    metric: str,
    before: float,
    threshold: float,
    region: str,
    age_s: float = 10,
    percent: float | None = None,
) -> Sighting:
    return Sighting(
        trouble=trouble,
        symptom=Symptom(region=region, service=service, metric=metric, before=before, threshold=threshold),
        since=NOW - timedelta(seconds=age_s),
        error_percent=percent,
    )


def grouped(*sightings: Sighting) -> tuple[AlertGroup, ...]:
    return group(sightings, TOPOLOGY, CRITICAL)


def test_a_cascade_is_one_alert_that_begins_at_its_deepest() -> None:
    [alert] = grouped(errors("door", 30), errors("order", 60, age_s=14), errors("payment", 95), latency("door"))
    assert (alert.region, alert.service, alert.services) == ("north", "payment", ("door", "order", "payment"))
    assert alert.around == ("mail", "search", "stock")
    assert alert.since == NOW - timedelta(seconds=14)
    assert (alert.trouble, alert.severity) == (Trouble.ERRORS, Severity.CRITICAL)
    assert len(alert.sightings) == 4


def test_of_several_deepest_the_worst_is_where_it_begins() -> None:
    [alert] = grouped(errors("door"), errors("order", 40), errors("search", 70))
    assert alert.service == "search"
    [alert] = grouped(latency("door"), latency("search", ms=5000), errors("order", 6))
    assert alert.service == "order"


def test_calls_that_go_round_still_have_a_beginning() -> None:
    back = TOPOLOGY.model_copy(
        update={"calls": (*TOPOLOGY.calls, Call(region="north", caller="payment", callee="order"))}
    )
    [alert] = group((errors("order", 40), errors("payment", 80)), back, CRITICAL)
    assert alert.service == "payment"


def test_what_nothing_connects_stays_apart() -> None:
    alerts = grouped(errors("payment"), errors("search", 30), errors("alone"), errors("payment", region="south"))
    assert [(alert.region, alert.services) for alert in alerts] == [
        ("north", ("alone",)),
        ("north", ("payment",)),
        ("north", ("search",)),
        ("south", ("payment",)),
    ]


def test_onsets_of_different_moments_are_different_alerts() -> None:
    moment = ONE_MOMENT.total_seconds()
    assert len(grouped(errors("order", age_s=10), errors("payment", age_s=10 + moment))) == 1
    assert len(grouped(errors("order", age_s=10), errors("payment", age_s=11 + moment))) == 2


@pytest.mark.parametrize(
    ("sightings", "severity"),
    [
        ([errors("door", 20)], Severity.CRITICAL),
        ([errors("door", 19)], Severity.HIGH),
        ([errors("payment", 90)], Severity.HIGH),
        ([latency("door")], Severity.HIGH),
        ([latency("payment")], Severity.MEDIUM),
        ([latency("payment"), saturation("payment")], Severity.MEDIUM),
        ([saturation("payment")], Severity.LOW),
        ([saturation("door")], Severity.LOW),
    ],
)
def test_severity_is_how_much_it_hurts_those_who_use_it(sightings: list[Sighting], severity: Severity) -> None:
    [alert] = grouped(*sightings)
    assert alert.severity is severity


def test_the_worst_comes_first() -> None:
    alerts = grouped(
        saturation("alone"), latency("mail"), errors("search"), errors("door", 50, "south"), latency("stock", "south")
    )
    assert [alert.severity for alert in alerts] == [
        Severity.CRITICAL,
        Severity.HIGH,
        Severity.MEDIUM,
        Severity.MEDIUM,
        Severity.LOW,
    ]


def test_nothing_is_no_alert() -> None:
    assert grouped() == ()


sightings = st.lists(
    st.one_of(
        st.builds(
            errors,
            st.sampled_from(SERVICES),
            st.floats(5, 100),
            st.sampled_from(REGIONS),
            st.floats(0, 3 * ONE_MOMENT.total_seconds()),
        ),
        st.builds(latency, st.sampled_from(SERVICES), st.sampled_from(REGIONS)),
        st.builds(saturation, st.sampled_from(SERVICES), st.sampled_from(REGIONS)),
    ),
    max_size=14,
    unique=True,
)


@given(sightings)
def test_each_sighting_is_in_exactly_one_alert_of_its_region(seen: list[Sighting]) -> None:
    alerts = grouped(*seen)
    members = [sighting for alert in alerts for sighting in alert.sightings]
    assert len(members) == len(seen)
    assert set(members) == set(seen)
    for alert in alerts:
        assert {sighting.symptom.region for sighting in alert.sightings} == {alert.region}
        assert {sighting.symptom.service for sighting in alert.sightings} == set(alert.services)
        assert alert.service in alert.services
        assert not set(alert.around) & set(alert.services)
        assert alert.since == min(sighting.since for sighting in alert.sightings)


@given(sightings, st.randoms(use_true_random=False))
def test_the_order_of_sightings_changes_nothing(seen: list[Sighting], draw: Random) -> None:
    shuffled = list(seen)
    draw.shuffle(shuffled)
    assert grouped(*shuffled) == grouped(*seen)


@given(sightings)
def test_grouping_what_was_grouped_changes_nothing(seen: list[Sighting]) -> None:
    alerts = grouped(*seen)
    assert grouped(*(sighting for alert in alerts for sighting in alert.sightings)) == alerts
    for alert in alerts:
        assert grouped(*alert.sightings) == (alert,)


@given(sightings)
def test_alerts_are_apart_wherever_they_could_touch(seen: list[Sighting]) -> None:
    edges = {frozenset(edge) for edge in CALLS}
    alerts = grouped(*seen)
    for index, alert in enumerate(alerts):
        for other in alerts[index + 1 :]:
            for one in alert.sightings:
                for two in other.sightings:
                    near = {one.symptom.service, two.symptom.service}
                    assert (
                        alert.region != other.region
                        or abs(one.since - two.since) > ONE_MOMENT
                        or (len(near) == 2 and frozenset(near) not in edges)
                    )
