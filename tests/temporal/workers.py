"""Workers as processes, one per role, to be frozen, told to stop, and replaced; and what Temporal says runs on them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType, PendingActivityState, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowHistory

from oncall.cli.children import Child, python
from oncall.cli.stack import ROLES, WORKER_READY_S
from oncall.config import ENV_CONFIG
from oncall.model.steps import Step
from oncall.temporal.roles import QUEUE_OF, Role

POLL_S = 0.02
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Stopped:
    """How one worker ended after it was told to: its exit code, and after how many seconds."""

    role: str
    code: int
    seconds: float


class Workers:
    """The workers that run now, by role. `config` holds `<role>.yaml` for each; their logs go to `logs`."""

    def __init__(self, client: Client, config: Path, logs: Path, running: Mapping[str, Child]) -> None:
        self._client = client
        self._config = config
        self._logs = logs
        self._running = dict(running)
        self._started = 0

    async def polling(self, role: Role) -> None:
        """Waits until the server says that the role's worker polls: a task would reach it now."""
        kind = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW if role is Role.ORCHESTRATE else _ACTIVITY
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace, task_queue=TaskQueue(name=QUEUE_OF[role]), task_queue_type=kind
        )
        ours = f"{self._running[role].pid}@"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                queue = await self._client.workflow_service.describe_task_queue(request)
                if any(poller.identity.startswith(ours) for poller in queue.pollers):
                    return
                await asyncio.sleep(POLL_S)

    async def freeze(self, role: Role) -> None:
        """Stops the role's worker where it is, with its polls open: what it is given, it does not know of yet."""
        await self.polling(role)
        os.kill(self._running[role].pid, signal.SIGSTOP)

    def thaw(self, role: Role) -> None:
        """Lets a frozen one go on."""
        os.kill(self._running[role].pid, signal.SIGCONT)

    async def replace(self, stop: Sequence[str] = ROLES, start: Sequence[str] = ROLES) -> list[Stopped]:
        """SIGTERM to the workers of some roles, frozen or not, and again while they drain; new ones take over at once.

        What they are at is theirs to finish.
        """
        leaving = [(role, self._running[role]) for role in stop]
        for _, child in leaving:
            os.kill(child.pid, signal.SIGTERM)
            os.kill(child.pid, signal.SIGCONT)
        starting = asyncio.create_task(self.start(start))
        stopped = await asyncio.gather(*(_stopped(role, child) for role, child in leaving))
        await starting
        return stopped

    async def start(self, roles: Sequence[str]) -> None:
        """Starts a worker for each role, and waits until it says that it is ready."""
        for role in roles:
            self._started += 1
            env = {ENV_CONFIG: str(self._config / f"{role}.yaml")}
            log = self._logs / f"{role}-{self._started}.log"
            command = python("worker", "--role", role)
            self._running[role] = await Child.start(f"the {role} worker", command, env, log)
        for role in roles:
            await self._running[role].ready(WORKER_READY_S)

    async def stop(self) -> None:
        """Ends those that run."""
        for child in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
        await asyncio.gather(*(child.stop(PATIENCE_S) for child in self._running.values()))


_ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY


async def _stopped(role: str, child: Child) -> Stopped:
    told = time.monotonic()
    ended = asyncio.create_task(child.ended())
    for number in (signal.SIGTERM, signal.SIGINT):
        await asyncio.wait((ended,), timeout=0.4)
        if not ended.done():
            os.kill(child.pid, number)
    return Stopped(role, await ended, time.monotonic() - told)


@dataclass(frozen=True)
class Task:
    """One activity that has not ended: its step, its id, and whether a worker was given it."""

    step: str
    id: str
    started: bool


async def given(client: Client, incident_id: str, *steps: Step[Any, Any]) -> None:
    """Waits until a worker was given one of these steps."""
    names = {step.name for step in steps}
    await until(client, incident_id, lambda tasks: any(task.step in names and task.started for task in tasks))


async def until(client: Client, incident_id: str, met: Callable[[list[Task]], bool]) -> None:
    """Waits until the incident's pending activities are as asked for."""
    async with asyncio.timeout(PATIENCE_S):
        while not met(await pending(client, incident_id)):
            await asyncio.sleep(POLL_S)


def attempts(history: WorkflowHistory) -> set[int]:
    """The numbers of all attempts of all steps in a history."""
    return {
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    }


async def pending(client: Client, incident_id: str) -> list[Task]:
    """The incident's activities that have not ended, as the server has them."""
    description = (await client.get_workflow_handle(incident_id).describe()).raw_description
    return [
        Task(
            activity.activity_type.name,
            activity.activity_id,
            activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
        )
        for activity in description.pending_activities
    ]
