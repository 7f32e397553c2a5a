"""The one boundary where exceptions become Temporal failures.

A failure is written to history in plaintext: its type always, its message and the source lines of its traceback unless
the converter encrypts them. So nothing leaves here but a code of the closed set and a message that was written to be
read: `Terminal` and `Retryable` carry both, and of every other exception only the class name survives, because its
text may quote a password, a query or a response.
"""

import asyncio
import functools
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, get_type_hints, overload

from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ActivityError, ApplicationError

from activities.heartbeat import heartbeating
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.steps import Step

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)
Owner = TypeVar("Owner")

STEP_ATTRIBUTE = "__step__"

log = logging.getLogger(__name__)


class Implements(Protocol[In, Out]):
    """Decorates `async (In) -> Out`, as a function or as a method, and leaves its type as it was."""

    @overload
    def __call__(self, function: Callable[[In], Awaitable[Out]], /) -> Callable[[In], Awaitable[Out]]: ...

    @overload
    def __call__(self, function: Callable[[Owner, In], Awaitable[Out]], /) -> Callable[[Owner, In], Awaitable[Out]]: ...


class _Implements(Generic[In, Out]):
    def __init__(self, step: Step[In, Out]) -> None:
        self._step = step

    def __call__(self, function: Callable[..., Awaitable[Any]], /) -> Callable[..., Awaitable[Any]]:
        step = self._step
        _check(step, function)

        @functools.wraps(function)
        async def boundary(*args: Any) -> Any:
            failure: BaseException
            try:
                async with heartbeating():
                    return await function(*args)
            except (Exception, asyncio.CancelledError, BaseExceptionGroup) as error:  # noqa: BLE001 - the boundary
                failure = _failure(step.name, error)
            # Raised outside of the handler, so that the original is not even the new exception's __context__.
            raise failure from None

        setattr(boundary, STEP_ATTRIBUTE, step)
        return activity.defn(name=step.name)(boundary)


def implements(step: Step[In, Out]) -> Implements[In, Out]:
    """A decorator that makes an async function or method the implementation of `step`.

    The result is a Temporal activity named `step.name` that heartbeats while it runs; a method becomes one when it is
    taken from an instance (`Worker(activities=[Remediation(broker).remediate])`). Raises TypeError at import when the
    annotations are not exactly the step's input and output. What the activity raises is one of:

    - `ApplicationError` with the code as `type` and the message of a `Terminal` (non-retryable) or a `Retryable`
      (with its delay);
    - `ApplicationError` of type `internal`, retryable, naming only the class of an unexpected exception;
    - a bare `asyncio.CancelledError`, or an `ActivityError` as it was.
    """
    return _Implements(step)


def missing(steps: Iterable[Step[Any, Any]], implementations: Iterable[Callable[..., Any]]) -> list[str]:
    """The names of `steps`, in order, that none of `implementations` implements; a worker with one must not start."""
    present = {step.name for step in map(_step_of, implementations) if step is not None}
    return [step.name for step in steps if step.name not in present]


def _step_of(implementation: Callable[..., Any]) -> Step[Any, Any] | None:
    step = getattr(implementation, STEP_ATTRIBUTE, None)
    return step if isinstance(step, Step) else None


def _check(step: Step[Any, Any], function: Callable[..., Any]) -> None:
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{name} implements step {step.name}: it must be an async function")
    parameters = list(inspect.signature(function).parameters.values())
    # Temporal drops a first parameter only by the name `self`; any other would be taken for the input.
    if parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise TypeError(f"{name} implements step {step.name}: it must take exactly one positional argument")
    hints = get_type_hints(function)
    for what, found, wanted in (
        ("take", hints.get(parameters[0].name), step.input),
        ("return", hints.get("return"), step.output),
    ):
        if found is not wanted:
            raise TypeError(
                f"{name} implements step {step.name}: it must {what} {wanted.__name__}, not {_shown(found)}"
            )


def _shown(hint: Any) -> str:
    return getattr(hint, "__name__", None) or ("nothing annotated" if hint is None else str(hint))


def _failure(step: str, error: BaseException) -> BaseException:
    match error:
        case asyncio.CancelledError():
            # A fresh one: the text of a cancellation, and what it interrupted, would be encoded with it.
            return asyncio.CancelledError()
        case ActivityError():
            return error
        case Terminal():
            return ApplicationError(error.message, type=error.code.value, non_retryable=True)
        case Retryable():
            delay = None if error.retry_after_s is None else timedelta(seconds=max(0.0, error.retry_after_s))
            return ApplicationError(error.message, type=error.code.value, next_retry_delay=delay)
        case _:
            name = type(error).__name__
            log.error("%s in step %s at %s", name, step, " < ".join(_frames(error)))
            return ApplicationError(f"{name} in step {step}", type=ErrorCode.INTERNAL.value)


def _frames(error: BaseException) -> list[str]:
    """`file:line` of each frame, innermost first. No source line, no local, no exception text."""
    return [f"{frame.filename}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__))]
