"""Contract: a worker that is told to stop ends with exit code 0, whatever else it is told meanwhile; a task that it was
given and does not know of yet is not lost; and it does not hang on a server that is gone."""

import asyncio
import json
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import Client

from oncall.cli.children import Child, python
from oncall.cli.opening import make_opening
from oncall.cli.stack import ROLES, WORKER_READY_S
from oncall.config import ENV_CONFIG, load_config
from oncall.model.alert import Severity
from oncall.model.steps import SURVEY
from oncall.temporal import incidents
from oncall.temporal.client import connect
from oncall.temporal.embedded import EmbeddedServer
from oncall.temporal.roles import Role
from tests.temporal.test_worker import configured
from tests.temporal.workers import Stopped, Workers, attempts, given, pending

SOON_S = 30.0
CATALOGUE = {"format": "recording/1", "regions": ["north"], "services": [{"region": "north", "service": "front"}]}


@dataclass
class Site:
    """A server, and workers on it."""

    server: EmbeddedServer
    client: Client
    config: Path
    workers: Workers

    async def opened(self) -> str:
        """The id of a new incident."""
        labels = {"run": secrets.token_hex(4)}
        config = load_config(self.config)
        opening = make_opening(config, "elevated_errors", Severity.CRITICAL, "errors", None, None, None, labels)
        return (await incidents.open_incident(self.client, opening)).incident_id


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    config = configured(tmp_path / "config")
    for role in ROLES:
        shutil.copy(config, config.with_name(f"{role}.yaml"))
    (config.parent / "telemetry").mkdir()
    (config.parent / "telemetry" / "catalogue.json").write_text(json.dumps(CATALOGUE))
    server = await EmbeddedServer.start(tmp_path / "server", port=0, ui_port=0)
    monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
    client = await connect()
    workers = Workers(client, config.parent, tmp_path / "logs", {})
    try:
        yield Site(server, client, config, workers)
    finally:
        await workers.stop()
        await server.stop()


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
                os.kill(worker.pid, number)
            await asyncio.wait((ended,), timeout=0.01)
    assert ended.result() == 0
    await worker.stop(0)


async def test_a_step_that_was_given_to_a_worker_just_before_it_is_told_to_stop_is_not_lost(site: Site) -> None:
    await site.workers.start((Role.ORCHESTRATE, Role.INVESTIGATE))
    for _ in range(2):
        await site.workers.freeze(Role.INVESTIGATE)
        incident_id = await site.opened()
        await given(site.client, incident_id, SURVEY)
        stopped = await site.workers.replace((Role.INVESTIGATE,), start=(Role.INVESTIGATE,))
        assert codes(stopped) == {Role.INVESTIGATE: 0}
        assert await pending(site.client, incident_id) == []
        history = await site.client.get_workflow_handle(incident_id).fetch_history()
        assert attempts(history) == {1}


async def test_a_worker_whose_server_is_gone_ends_all_the_same(site: Site) -> None:
    await site.workers.start((Role.ORCHESTRATE, Role.INVESTIGATE))
    await site.workers.freeze(Role.INVESTIGATE)
    await given(site.client, await site.opened(), SURVEY)
    site.server.process.kill()
    await site.server.process.wait()
    stopped = await site.workers.replace((Role.ORCHESTRATE, Role.INVESTIGATE), start=())
    assert codes(stopped) == {Role.ORCHESTRATE: 0, Role.INVESTIGATE: 0}
    assert max(one.seconds for one in stopped) < SOON_S
