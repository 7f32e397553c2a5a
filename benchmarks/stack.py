"""A Temporal server and real workers for a measurement, and incidents run on them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter

from oncall.cli.children import Child, python
from oncall.cli.deciding import make_decision
from oncall.cli.rehearsal import DemoApprover
from oncall.cli.settings import ENV_ADDRESS
from oncall.cli.stack import ROLES, WORKER_READY_S, write_config
from oncall.config import ENV_CONFIG
from oncall.model.alert import Alert, Severity
from oncall.model.incident import Phase
from oncall.model.opening import Opening
from oncall.model.report import IncidentReport
from oncall.temporal import gates, incidents
from oncall.temporal.embedded import EmbeddedServer
from oncall.temporal.search import ensure_search_attributes

TENANT = "oncall"
CLOSE_TIMEOUT_S = 180.0
_LOOK_S = 0.1
# After an answer the workflow is left alone: a query within the measured time would be part of what is measured.
_UNDISTURBED_S = 0.4
_STOP_S = 20.0


@dataclass(frozen=True)
class Stack:
    """A server, its clients' settings, and an approver's key. `config` is the folder of one `<role>.yaml` per role."""

    state: Path
    client: Client
    address: str
    config: Path
    key: Path


@dataclass(frozen=True)
class Closed:
    """A closed incident."""

    report: IncidentReport
    history: WorkflowHistory


@asynccontextmanager
async def running(
    state: Path, info: dict[str, Any], recordings: Path | None = None, roles: Sequence[str] = ROLES
) -> AsyncIterator[Stack]:
    """A fresh server with one worker process per role, all stopped afterwards. `info` is the estate's ready line."""
    async with AsyncExitStack() as cleanup:
        approver = DemoApprover(state)
        state.mkdir(parents=True)
        approver.enrol()
        cleanup.callback(approver.forget)
        server = await EmbeddedServer.start(state, port=0, ui_port=0)
        cleanup.push_async_callback(server.stop)
        client = await Client.connect(server.address, data_converter=pydantic_data_converter)
        await ensure_search_attributes(client)
        config = write_config(state, info).parent
        if recordings is not None:
            path = config / "investigate.yaml"
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
            settings["sources"]["recordings"] = str(recordings)
            path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        stack = Stack(state, client, server.address, config, approver.key)
        commands = {role: python("worker", "--role", role) for role in roles}
        await start_workers(stack, commands, cleanup)
        yield stack


async def start_workers(stack: Stack, commands: dict[str, tuple[str, ...]], cleanup: AsyncExitStack) -> None:
    """Starts one process per command, told of its own configuration only, and waits until all of them poll."""
    children: list[Child] = []
    for role, command in commands.items():
        env = {ENV_ADDRESS: stack.address, ENV_CONFIG: str(stack.config / f"{role}.yaml")}
        child = await Child.start(f"the {role} worker", command, env, stack.state / "logs" / f"{role}.log")
        cleanup.push_async_callback(child.stop, _STOP_S)
        children.append(child)
    for child in children:
        await child.ready(WORKER_READY_S)


def opening(recording: str | None = None) -> Opening:
    """A critical incident of nobody in particular, over a recording or the live estate."""
    now = datetime.now(UTC)
    name = f"bench-{secrets.token_hex(6)}"
    labels = {"alertname": "elevated_errors", "severity": "critical", "run": name}
    return Opening(
        incident_id=name,
        tenant=TENANT,
        anomaly_type="elevated_errors",
        severity=Severity.CRITICAL,
        message="users see more errors than usual",
        alert=Alert(labels=labels, annotations={}, starts_at=now, fingerprint=name),
        opened_at=now,
        recording=recording,
    )


async def run_incident(stack: Stack, recording: str | None = None) -> Closed:
    """One incident from opening to report; every question is answered with a signed yes, one at a time, as soon as
    the workflow waits for it."""
    opened = await incidents.open_incident(stack.client, opening(recording))
    handle = stack.client.get_workflow_handle(opened.workflow_id, result_type=IncidentReport)
    answering = None if recording else asyncio.create_task(_answer_all(stack, opened.incident_id))
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            report = await handle.result()
    finally:
        if answering is not None:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
    return Closed(report, await handle.fetch_history())


async def _answer_all(stack: Stack, incident_id: str) -> None:
    waits = (Phase.AWAITING_READ_APPROVAL, Phase.AWAITING_WRITE_APPROVAL)
    while True:
        status = await incidents.status(stack.client, incident_id)
        if status.waiting_for and status.phase in waits:
            pending = (await gates.approvals(stack.client, incident_id))[0]
            decision = await asyncio.to_thread(make_decision, pending, True, "benchmark", stack.key)
            await gates.decide(stack.client, incident_id, decision)
            await asyncio.sleep(_UNDISTURBED_S)
        await asyncio.sleep(_LOOK_S)


def phase_seconds(report: IncidentReport, phase: Phase) -> float:
    """How long an incident was in `phase`, all visits together; workflow time, from its report."""
    spans = [span for span in report.phases if span.phase is phase and span.ended_at is not None]
    return sum((span.ended_at - span.started_at).total_seconds() for span in spans if span.ended_at is not None)
