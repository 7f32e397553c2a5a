"""How a workflow runs a step: by its typed name, with the options of its kind, never by importing the activity."""

from typing import TypeVar

from pydantic import BaseModel
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError

from oncall.model.steps import Step
from workflows.options import options

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


def start(step: Step[In, Out], arg: In, summary: str) -> workflow.ActivityHandle[Out]:
    """Schedule a step; `summary` is what the Temporal UI shows beside it."""
    chosen = options(step)
    return workflow.start_activity(
        step.name,
        arg,
        task_queue=step.queue,
        result_type=step.output,
        start_to_close_timeout=chosen.start_to_close,
        schedule_to_close_timeout=chosen.schedule_to_close,
        heartbeat_timeout=chosen.heartbeat,
        retry_policy=chosen.retry,
        summary=summary,
    )


async def call(step: Step[In, Out], arg: In, summary: str) -> Out:
    """Run a step to its end. Raises ActivityError when its retries are used up."""
    return await start(step, arg, summary)


def failure_code(error: ActivityError) -> tuple[str | None, bool]:
    """The error code of a failed step, and whether it ran out of time instead of failing."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type, False
    return None, isinstance(cause, TimeoutError)
