"""How long steps waited because a worker had died: what nobody notices costs its whole time-out."""

from collections.abc import Iterable

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent


def waits(events: Iterable[HistoryEvent]) -> dict[str, list[float]]:
    """Seconds from the order to the attempt that counted, for each activity that needed more than one, by step."""
    ordered: dict[int, tuple[str, float]] = {}
    found: dict[str, list[float]] = {}
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            step = event.activity_task_scheduled_event_attributes.activity_type.name
            ordered[event.event_id] = (step, _seconds(event))
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            started = event.activity_task_started_event_attributes
            if started.attempt > 1:
                step, at = ordered[started.scheduled_event_id]
                found.setdefault(step, []).append(_seconds(event) - at)
    return found


def _seconds(event: HistoryEvent) -> float:
    return event.event_time.seconds + event.event_time.nanos / 1e9
