"""Runs workers until they are told to stop; then drains them."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.implements import missing
from oncall.config import Config
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.steps import STEPS
from oncall.temporal.client import connect
from oncall.temporal.roles import QUEUE_OF, Activities, Role, activities_of
from oncall.temporal.sandbox import runner
from oncall.temporal.search import ensure_search_attributes
from workflows.incident import IncidentWorkflow
from workflows.shift import ShiftWorkflow

ACTIVITY_SLOTS = 200
"""Activities one worker runs at once: more than a whole roster, so that no agent waits for another."""

DRAIN = timedelta(seconds=30)


async def serve(roles: tuple[Role, ...], config: Config) -> None:
    """Poll for `roles` until SIGTERM or SIGINT, then let running activities finish within `DRAIN`.

    Prints one JSON line per role on stdout once it polls. Raises Terminal(BAD_CONFIG) when a step of a role has no
    implementation: its queue would otherwise retry in silence.
    """
    client = await connect()
    await ensure_search_attributes(client)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        for role in roles:
            activities = await stack.enter_async_context(activities_of(role, config))
            await stack.enter_async_context(_worker(client, role, activities))
            print(json.dumps({"ready": True, "role": role}), flush=True)
        await stop.wait()


def _worker(client: Client, role: Role, activities: Activities) -> Worker:
    queue = QUEUE_OF[role]
    if lacking := missing([step for step in STEPS if step.queue == queue], activities):
        raise Terminal(ErrorCode.BAD_CONFIG, f"role {role} lacks an implementation of: {', '.join(lacking)}")
    return Worker(
        client,
        task_queue=queue,
        workflows=[ShiftWorkflow, IncidentWorkflow] if role is Role.ORCHESTRATE else [],
        activities=activities,
        workflow_runner=runner(),
        max_concurrent_activities=ACTIVITY_SLOTS,
        graceful_shutdown_timeout=DRAIN,
    )
