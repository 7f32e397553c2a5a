"""How a workflow runs a step: by its typed name, with the options of its kind, never by importing the activity."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError

from oncall.model.steps import Step
from workflows.options import options

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


def start(step: Step[In, Out], arg: In, summary: str, within: timedelta | None = None) -> workflow.ActivityHandle[Out]:
    """Schedule a step; `summary` is what the Temporal UI shows beside it. `within`: how long it may take with all its
    retries, where that is less than its options allow."""
    chosen = options(step)
    return workflow.start_activity(
        step.name,
        arg,
        task_queue=step.queue,
        result_type=step.output,
        start_to_close_timeout=chosen.start_to_close,
        schedule_to_close_timeout=within or chosen.schedule_to_close,
        heartbeat_timeout=chosen.heartbeat,
        retry_policy=chosen.retry,
        summary=summary,
    )


async def call(step: Step[In, Out], arg: In, summary: str, within: timedelta | None = None) -> Out:
    """Run a step to its end. Raises ActivityError when its retries are used up."""
    return await start(step, arg, summary, within)


@dataclass(frozen=True)
class Failure:
    """Why a step failed: its error code and line, or that it ran out of time."""

    code: str | None
    line: str
    timed_out: bool


def failure(error: ActivityError) -> Failure:
    """What a failed step says of itself. The line was written to be read: the boundary lets no other through."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return Failure(cause.type, f"{error.activity_type} failed: {cause.message[:300]} ({cause.type})", False)
    timed_out = isinstance(cause, TimeoutError)
    return Failure(None, f"{error.activity_type} {'timed out' if timed_out else 'failed'}", timed_out)
