"""Runs workers until they are told to stop; then drains them."""

import asyncio
import contextlib
import json
import signal
from contextlib import AsyncExitStack
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import FixedSizeSlotSupplier, Worker, WorkerTuner

from activities.implements import missing
from oncall.config import Config
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.steps import STEPS
from oncall.temporal.client import connect
from oncall.temporal.roles import QUEUE_OF, Activities, Role, activities_of
from oncall.temporal.sandbox import runner
from oncall.temporal.search import ensure_search_attributes
from oncall.temporal.slots import ActivitySlots
from workflows.incident import IncidentWorkflow
from workflows.shift import ShiftWorkflow

ACTIVITY_SLOTS = 200
"""Activities one worker runs at once: more than a whole roster, so that no agent waits for another."""

OTHER_SLOTS = FixedSizeSlotSupplier(100)

HEARTBEAT_EVERY = timedelta(seconds=4)
"""How often a heartbeat is passed on at most. By default the SDK saves them up for 8 of their 10 s: a worker that is
busy for 2 s would count as dead."""

QUIET_S = 1.0
"""How long nothing may have begun or ended before polls are cut off: what was on its way has arrived by then."""

LAST_TASKS_S = 10.0
"""How long that is waited for at most."""

DRAIN = timedelta(seconds=65)
"""How long activities that run may go on. The longest attempt that the server waits for is a remedy's, 60 s; then come
verifying 40, synthesizing and measuring 30, investigating, opening a grant, following and reporting 20, observing 15,
surveying 10. So whatever had begun ends by itself, or had run out of time in any case; 5 s are left to report it. With
`LAST_TASKS_S`, what stops a worker has to wait for 75 s."""


async def serve(roles: tuple[Role, ...], config: Config) -> None:
    """Poll for `roles` until SIGTERM or SIGINT, then let running activities finish within `DRAIN`.

    Prints one JSON line per role on stdout once it polls. Raises Terminal(BAD_CONFIG) when a step of a role has no
    implementation: its queue would otherwise retry in silence.
    """
    client = await connect()
    await ensure_search_attributes(client)
    stop = _order_to_stop()
    async with AsyncExitStack() as stack:
        served: list[tuple[Worker, ActivitySlots]] = []
        for role in roles:
            activities = await stack.enter_async_context(activities_of(role, config))
            slots = ActivitySlots(ACTIVITY_SLOTS)
            worker = await stack.enter_async_context(_worker(client, role, activities, slots))
            served.append((worker, slots))
            print(json.dumps({"ready": True, "role": role}), flush=True)
        await stop.wait()
        await asyncio.gather(*(slots.close(QUIET_S, LAST_TASKS_S) for _, slots in served))
        # Together, not one after the other as the stack would: each may need all of DRAIN.
        await asyncio.gather(*(worker.shutdown() for worker, _ in served))


def _order_to_stop() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; a second one changes nothing, not even while the process is on its way out.

    The loop's own signal handlers would not do: they go with the loop, and a late signal would end the process with a
    code of its own.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told(*_: object) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    return stop


def _worker(client: Client, role: Role, activities: Activities, slots: ActivitySlots) -> Worker:
    queue = QUEUE_OF[role]
    if lacking := missing([step for step in STEPS if step.queue == queue], activities):
        raise Terminal(ErrorCode.BAD_CONFIG, f"role {role} lacks an implementation of: {', '.join(lacking)}")
    return Worker(
        client,
        task_queue=queue,
        workflows=[ShiftWorkflow, IncidentWorkflow] if role is Role.ORCHESTRATE else [],
        activities=activities,
        workflow_runner=runner(),
        tuner=WorkerTuner.create_composite(
            # Closed late: a workflow task that is cut off is only given to another worker, and while a worker that has
            # stopped polling does not say so, tasks for the workflows in its memory wait for it for 10 s.
            workflow_supplier=OTHER_SLOTS,
            activity_supplier=slots,
            local_activity_supplier=OTHER_SLOTS,
            nexus_supplier=OTHER_SLOTS,
        ),
        graceful_shutdown_timeout=DRAIN,
        max_heartbeat_throttle_interval=HEARTBEAT_EVERY,
    )
