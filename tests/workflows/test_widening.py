"""An incident widens when it cannot see: real agents over recordings of one fault, with and without telemetry."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from oncall.model.alert import Severity
from oncall.model.diagnosis import Conclusion
from oncall.model.incident import Ending
from oncall.model.report import IncidentReport
from oncall.model.topology import Call, Instance, Topology
from oncall.temporal.roles import Role
from tests.temporal.site import RAISED, Row, Site, record, site_at

REGIONS = ("north", "south", "west")
SERVICES = ("front", "middle", "back", "aside")
TOPOLOGY = Topology(
    regions=REGIONS,
    services=tuple(Instance(region=region, service=service) for region in REGIONS for service in SERVICES),
    calls=tuple(
        Call(region=region, caller=caller, callee=callee)
        for region in REGIONS
        for caller, callee in (("front", "middle"), ("middle", "back"))
    ),
)
SICK = ("north", "middle")
USUAL = {"error_rate(%)": 0.0, "latency_p95(ms)": 20.0, "pool_waiting(count)": 0.0, "cpu(%)": 4.0}
FAULT = {
    (*SICK, "error_rate(%)"): 70.0,
    (*SICK, "latency_p95(ms)"): 700.0,
    (*SICK, "pool_waiting(count)"): 30.0,
    ("north", "front", "error_rate(%)"): 90.0,
    ("north", "front", "client_errors(1/s):middle"): 5.0,
}
FAULT_S = 10


def readings() -> list[Row]:
    """Two minutes of quiet services, the last seconds of them with a fault that fills a pool."""
    usual = {(place.region, place.service, metric): USUAL[metric] for place in TOPOLOGY.services for metric in USUAL}
    before = dict.fromkeys(FAULT, 0.0) | usual
    return [
        (RAISED - timedelta(seconds=second), *series, (before | FAULT if second < FAULT_S else before)[series])
        for second in range(0, 120, 2)
        for series in before
    ]


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with site_at(tmp_path, monkeypatch) as site:
        await site.workers.start((Role.ORCHESTRATE, Role.INVESTIGATE))
        yield site


async def report_of(site: Site, name: str, seen: Callable[[Row], bool]) -> IncidentReport:
    """A `low` incident at the sick service, over the readings that are `seen`."""
    record(site.recordings / name, TOPOLOGY, filter(seen, readings()))
    incident_id = await site.opened(name, Severity.LOW, SICK)
    handle = site.client.get_workflow_handle(incident_id, result_type=IncidentReport)
    return await asyncio.wait_for(handle.result(), 60)


def planned(report: IncidentReport) -> list[int]:
    """How many agents each wave had: all but the last are noted with why they were not enough."""
    return [*(int(note.split()[0]) for note in report.notes), report.coverage.planned]


async def test_an_incident_widens_when_the_telemetry_of_its_service_is_removed(site: Site) -> None:
    whole = await report_of(site, "whole", lambda row: True)
    assert whole.diagnosis is not None
    assert whole.diagnosis.conclusion is Conclusion.ROOT_CAUSE
    assert whole.diagnosis.root_cause is not None
    assert (whole.diagnosis.root_cause.region, whole.diagnosis.root_cause.service) == SICK
    assert planned(whole) == [5]

    removed = await report_of(site, "removed", lambda row: row[1:3] != SICK)
    assert removed.diagnosis is not None
    assert removed.diagnosis.conclusion is Conclusion.INCONCLUSIVE
    # Its caller fails for all to see. That is no reason to blame it for what nobody could see.
    assert removed.diagnosis.ranked[0].service == "front"
    assert "middle, which nobody could measure" in removed.diagnosis.summary
    assert "no metrics with a past of middle in north" in removed.diagnosis.blind
    assert planned(removed) == [5, 15, 50, 60]

    nothing = await report_of(site, "nothing", lambda row: False)
    assert nothing.diagnosis is not None
    assert nothing.diagnosis.conclusion is Conclusion.INCONCLUSIVE
    assert planned(nothing) == [5, 15, 50, 60]
    assert {report.status for report in (whole, removed, nothing)} == {Ending.UNRESOLVED}
