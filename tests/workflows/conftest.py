"""A real Temporal server for the workflow tests, with and without time skipping, and incidents on it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from oncall.model import names
from oncall.model.incident import IncidentStatus, PendingApproval, Phase
from oncall.model.names import Queue
from oncall.model.opening import Opening
from oncall.model.report import IncidentReport
from oncall.temporal.embedded import binary
from oncall.temporal.sandbox import runner
from oncall.temporal.search import ensure_search_attributes
from tests.people import Person
from tests.workflows.scripted import Script, opening
from tests.workflows.skipping import FLAGS
from workflows.incident import IncidentWorkflow
from workflows.shift import ShiftWorkflow

PATIENCE_S = 30.0


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Person, Person]:
    """An approver, and a stranger who is on nobody's list."""
    folder = tmp_path_factory.mktemp("people")
    return Person.create(folder, "alice"), Person.create(folder, "mallory")


@dataclass
class Incident:
    """One running incident of a test."""

    env: WorkflowEnvironment
    handle: WorkflowHandle[IncidentWorkflow, IncidentReport]

    async def waiting(self, count: int = 1) -> list[PendingApproval]:
        """What waits for a human, once `count` requests do."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found: list[PendingApproval] = await self.handle.query(
                    names.QUERY_APPROVALS, result_type=list[PendingApproval]
                )
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.05)

    async def status(self) -> IncidentStatus:
        """One look."""
        found: IncidentStatus = await self.handle.query(names.QUERY_STATUS, result_type=IncidentStatus)
        return found

    async def in_phase(self, phase: Phase) -> None:
        """Wait until the incident is in `phase`."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.status()).phase is not phase:
                await asyncio.sleep(0.05)

    async def decide(self, person: Person, request: PendingApproval, approved: bool, reason: str = "") -> None:
        """Send a signed decision."""
        decision = person.decide(request.request_digest, approved, reason)
        await self.handle.signal(names.SIGNAL_DECIDE, decision)

    async def approve(self, person: Person, count: int = 1) -> None:
        """Approve the next `count` requests, once that many wait."""
        for request in await self.waiting(count):
            await self.decide(person, request, approved=True)

    async def report(self) -> IncidentReport:
        """The final report."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.handle.result()


Open = Callable[..., Awaitable[Incident]]


@asynccontextmanager
async def working(client: Client, script: Script, *queues: Queue) -> AsyncIterator[None]:
    """Workers for every queue, or for these, whose steps answer as the script says."""
    async with AsyncExitStack() as stack:
        for queue in queues or Queue:
            await stack.enter_async_context(
                Worker(
                    client,
                    task_queue=queue,
                    workflows=[ShiftWorkflow, IncidentWorkflow] if queue is Queue.ORCHESTRATE else [],
                    activities=script.on(queue),
                    workflow_runner=runner(),
                )
            )
        yield


@asynccontextmanager
async def _incidents(env: WorkflowEnvironment) -> AsyncIterator[Open]:
    client: Client = env.client
    async with AsyncExitStack() as stack:

        async def start(
            script: Script, change: Callable[[Opening], Opening] = lambda o: o, queues: tuple[Queue, ...] = ()
        ) -> Incident:
            await stack.enter_async_context(working(client, script, *queues))
            incident_id = f"incident-{uuid.uuid4().hex[:8]}"
            handle = await client.start_workflow(
                IncidentWorkflow.run, change(opening(incident_id)), id=incident_id, task_queue=Queue.ORCHESTRATE
            )
            return Incident(env, handle)

        yield start


@pytest.fixture
async def incident(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens an incident over scripted steps, on a server of its own in real time."""
    async with (
        await WorkflowEnvironment.start_local(
            dev_server_existing_path=binary(), data_converter=pydantic_data_converter
        ) as env,
        _incidents(env) as start,
    ):
        await ensure_search_attributes(env.client)
        yield start


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """A server that can skip hours, when it is told to."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=binary(),
        dev_server_extra_args=FLAGS,
        data_converter=pydantic_data_converter,
    ) as env:
        await ensure_search_attributes(env.client)
        with env.with_time_skipping_disabled():
            yield env


@pytest.fixture
async def skipping_incident(skipping: WorkflowEnvironment) -> AsyncIterator[Open]:
    """Opens an incident over scripted steps, on a server that can skip hours."""
    async with _incidents(skipping) as start:
        yield start
