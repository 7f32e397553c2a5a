"""Contract: a worker that is told to stop ends with exit code 0, whatever else it is told meanwhile; nothing that it
was given is lost, though tasks come by the hundred; and it does not hang on a server that is gone."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from oncall.cli.children import Child, python
from oncall.cli.stack import WORKER_READY_S
from oncall.config import ENV_CONFIG
from oncall.model.agent import Specialist
from oncall.model.report import IncidentReport
from oncall.model.steps import INVESTIGATE, SURVEY
from oncall.model.topology import Instance, Topology
from oncall.temporal.roles import Role
from tests.temporal.site import RAISED, Site, record, site_at
from tests.temporal.workers import Stopped, attempts, given

SOON_S = 30.0
SERVICES = tuple(Instance(region="north", service=f"service-{number}") for number in range(30))
AGENTS = len(SERVICES) * len(Specialist)
STOPS = 4
QUIET = "quiet"


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with site_at(tmp_path, monkeypatch) as site:
        # A minute in which nothing happens at thirty services.
        seconds = (RAISED - timedelta(seconds=second) for second in range(0, 60, 2))
        rows = ((moment, place.region, place.service, "cpu(%)", 4.0) for moment in seconds for place in SERVICES)
        record(site.recordings / QUIET, Topology(regions=("north",), services=SERVICES, calls=()), rows)
        yield site


def codes(stopped: list[Stopped]) -> dict[str, int]:
    """The exit codes by role."""
    return {one.role: one.code for one in stopped}


async def test_a_worker_of_every_role_is_told_again_and_again_and_ends_well(site: Site, tmp_path: Path) -> None:
    command, env = python("worker", "--role", "all"), {ENV_CONFIG: str(site.config)}
    worker = await Child.start("the worker", command, env, tmp_path / "log")
    await worker.ready(WORKER_READY_S)
    ended = asyncio.create_task(worker.ended())
    async with asyncio.timeout(SOON_S):
        while not ended.done():
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)
            await asyncio.wait((ended,), timeout=0.001)
    assert ended.result() == 0
    await worker.stop(0)


async def test_no_agent_of_a_swarm_is_lost_whenever_its_worker_is_told_to_stop(site: Site) -> None:
    await site.workers.start((Role.ORCHESTRATE, Role.INVESTIGATE))
    for number in range(STOPS):
        incident_id = await site.opened(QUIET)
        await given(site.client, incident_id, INVESTIGATE)
        await asyncio.sleep(0.1 * number)
        stopped = await site.workers.replace((Role.INVESTIGATE,), start=(Role.INVESTIGATE,))
        assert codes(stopped) == {Role.INVESTIGATE: 0}
        handle = site.client.get_workflow_handle(incident_id, result_type=IncidentReport)
        report = await asyncio.wait_for(handle.result(), SOON_S)
        assert (report.coverage.planned, report.coverage.completed) == (AGENTS, AGENTS)
        assert attempts(await handle.fetch_history()) == {1}


async def test_a_worker_whose_server_is_gone_ends_all_the_same(site: Site) -> None:
    await site.workers.start((Role.ORCHESTRATE, Role.INVESTIGATE))
    await site.workers.freeze(Role.INVESTIGATE)
    await given(site.client, await site.opened(QUIET), SURVEY)
    site.server.process.kill()
    await site.server.process.wait()
    stopped = await site.workers.replace((Role.ORCHESTRATE, Role.INVESTIGATE), start=())
    assert codes(stopped) == {Role.ORCHESTRATE: 0, Role.INVESTIGATE: 0}
    assert max(one.seconds for one in stopped) < SOON_S
