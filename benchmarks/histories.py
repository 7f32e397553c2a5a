"""What a history says about its own size and pace."""

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from oncall.model import names, steps
from oncall.model.access import Decision
from oncall.trust.requests import parse_request, request_digest


def size_bytes(history: WorkflowHistory) -> int:
    """The events' size as protocol buffers."""
    return sum(event.ByteSize() for event in history.events)


def approval_to_remedy_s(history: WorkflowHistory) -> list[float]:
    """For each remedy, the seconds from the last signal that decided its request to its ActivityTaskStarted.

    Both are the server's times. Temporal writes the started event of an activity when it closes, but with the time at
    which a worker took it.
    """
    signalled: dict[str, float] = {}
    scheduled: dict[int, str] = {}
    found: list[float] = []
    for event in history.events:
        at = event.event_time.ToNanoseconds() / 1e9
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            signal = event.workflow_execution_signaled_event_attributes
            if signal.signal_name == names.SIGNAL_DECIDE:
                decision = Decision.model_validate_json(signal.input.payloads[0].data)
                signalled[decision.request_digest] = at
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            task = event.activity_task_scheduled_event_attributes
            if task.activity_type.name == steps.REMEDIATE.name:
                remedy = steps.RemediateIn.model_validate_json(task.input.payloads[0].data)
                scheduled[event.event_id] = request_digest(parse_request(remedy.request))
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            digest = scheduled.get(event.activity_task_started_event_attributes.scheduled_event_id)
            if digest is not None:
                found.append(at - signalled[digest])
    return found
