"""Contract: a worker that is told to stop ends with exit code 0, whatever else it is told meanwhile; nothing that it
was given is lost, though tasks come by the hundred; and it does not hang on a server that is gone."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.client import Client

from oncall.cli.children import Child, python
from oncall.cli.opening import make_opening
from oncall.cli.stack import ROLES, WORKER_READY_S
from oncall.config import ENV_CONFIG, load_config
from oncall.model.agent import Specialist
from oncall.model.alert import Severity
from oncall.model.report import IncidentReport
from oncall.model.steps import INVESTIGATE, SURVEY
from oncall.temporal import incidents
from oncall.temporal.client import connect
from oncall.temporal.embedded import EmbeddedServer
from oncall.temporal.roles import Role
from tests.telemetry.test_parquet import METRICS, write
from tests.temporal.test_worker import configured
from tests.temporal.workers import Stopped, Workers, attempts, given

SOON_S = 30.0
SERVICES = [{"region": "north", "service": f"service-{number}"} for number in range(30)]
CATALOGUE = {"format": "recording/1", "regions": ["north"], "services": SERVICES}
RAISED = datetime(2026, 1, 2, 12, 1, tzinfo=UTC)
AGENTS = len(SERVICES) * len(Specialist)
STOPS = 4


@dataclass
class Site:
    """A server, and workers on it."""

    server: EmbeddedServer
    client: Client
    config: Path
    workers: Workers

    async def opened(self) -> str:
        """The id of a new incident, over the recording."""
        labels = {"run": secrets.token_hex(4)}
        config = load_config(self.config)
        opening = make_opening(config, "elevated_errors", Severity.CRITICAL, "errors", None, None, None, labels)
        recorded = opening.model_copy(update={"recording": "quiet"})
        return (await incidents.open_incident(self.client, recorded)).incident_id


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    config = configured(tmp_path / "config", sources={"telemetry": "telemetry", "recordings": "recordings"})
    for role in ROLES:
        shutil.copy(config, config.with_name(f"{role}.yaml"))
    recorded(config.parent / "recordings" / "quiet")
    server = await EmbeddedServer.start(tmp_path / "server", port=0, ui_port=0)
    monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
    client = await connect()
    workers = Workers(client, config.parent, tmp_path / "logs", {})
    try:
        yield Site(server, client, config, workers)
    finally:
        await workers.stop()
        await server.stop()


def recorded(folder: Path) -> None:
    """A recording of a minute in which nothing happens at thirty services."""
    rows: list[tuple[object, ...]] = [
        ((RAISED - timedelta(seconds=second)).replace(tzinfo=None), place["region"], place["service"], "cpu(%)", 4.0)
        for second in range(0, 60, 2)
        for place in SERVICES
    ]
    write(folder / "metrics.parquet", METRICS, rows)
    (folder / "catalogue.json").write_text(json.dumps(CATALOGUE))
    (folder / "alert.json").write_text(json.dumps({"alerts": [{"startsAt": RAISED.isoformat()}]}))


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
        incident_id = await site.opened()
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
    await given(site.client, await site.opened(), SURVEY)
    site.server.process.kill()
    await site.server.process.wait()
    stopped = await site.workers.replace((Role.ORCHESTRATE, Role.INVESTIGATE), start=())
    assert codes(stopped) == {Role.ORCHESTRATE: 0, Role.INVESTIGATE: 0}
    assert max(one.seconds for one in stopped) < SOON_S
