"""Follows an incident's Temporal history as it grows, over restarts of the server."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from tests.campaign.events import Event, Sink, Source

_ANSWER = "answer req-"
"""How the summary of a gate's timer begins."""

_AGAIN_S = 0.02
_PENDING_S = 0.01
_RPC_TIMEOUT = timedelta(seconds=5)
CLOSINGS = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    }
)

# Shown before they are written, and again otherwise: the server tells of a workflow task that is being tried once more
# as if it stood in the history already (https://github.com/temporalio/temporal/pull/9325).
_TRANSIENT = frozenset({EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED})

Handle = WorkflowHandle[Any, Any]


class Kinds:
    """Names history events as `Event.kind` has them: it has to know which activity an event is about."""

    def __init__(self) -> None:
        self._steps: dict[int, str] = {}

    def of(self, event: HistoryEvent) -> str | None:
        """The kind, None for events that no point is about."""
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                step = event.activity_task_scheduled_event_attributes.activity_type.name
                self._steps[event.event_id] = step
                return f"scheduled:{step}"
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                return f"completed:{self._steps[event.activity_task_completed_event_attributes.scheduled_event_id]}"
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                return f"signaled:{event.workflow_execution_signaled_event_attributes.signal_name}"
            case EventType.EVENT_TYPE_TIMER_STARTED:
                return "gate" if _summary(event).startswith(_ANSWER) else None
        return "closed" if event.event_type in CLOSINGS else None


def _summary(event: HistoryEvent) -> str:
    """What the Temporal UI shows beside an event: JSON, as every payload."""
    data = event.user_metadata.summary.data
    return str(json.loads(data)) if data else ""


class Follower:
    """What a client saw of one history, event by event; `rewritten` lists what the server later told otherwise."""

    def __init__(self, handle: Handle, sink: Sink) -> None:
        self._handle = handle
        self._sink = sink
        self._kinds = Kinds()
        self.seen: dict[int, bytes] = {}
        self.rewritten: list[int] = []
        self.closed = False

    async def run(self) -> None:
        """Follow until the workflow has closed."""
        while True:
            with contextlib.suppress(RPCError):
                async for event in self._handle.fetch_history_events(wait_new_event=True):
                    self.take(event)
                    if self.closed:
                        return
            await asyncio.sleep(_AGAIN_S)

    def take(self, event: HistoryEvent) -> None:
        """One event; one that was seen before is only compared."""
        if event.event_type in _TRANSIENT:
            return
        content = event.SerializeToString(deterministic=True)
        if event.event_id in self.seen:
            if self.seen[event.event_id] != content:
                self.rewritten.append(event.event_id)
            return
        self.seen[event.event_id] = content
        self.closed = self.closed or event.event_type in CLOSINGS
        if kind := self._kinds.of(event):
            self._sink(Event(Source.HISTORY, kind, {"event_id": event.event_id}))


async def watch_pending(handle: Handle, sink: Sink, wanted: Callable[[], bool]) -> None:
    """Reports each activity attempt that a worker has taken, while `wanted`: the server writes it to history only once
    it has ended."""
    seen: set[tuple[str, int]] = set()
    while True:
        if not wanted():
            await asyncio.sleep(0.1)
            continue
        with contextlib.suppress(RPCError):
            description = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
            for activity in description.raw_description.pending_activities:
                key = (activity.activity_id, activity.attempt)
                if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED and key not in seen:
                    seen.add(key)
                    body = {"activity_id": activity.activity_id, "attempt": activity.attempt}
                    sink(Event(Source.PENDING, f"running:{activity.activity_type.name}", body))
        await asyncio.sleep(_PENDING_S)
