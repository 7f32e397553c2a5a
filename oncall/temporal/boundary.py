"""What Temporal's failures mean to a client of ours, in one place.

Retryable(TEMPORAL_UNREACHABLE): it does not answer, or the workflow does not. Terminal(NOT_FOUND): there is no such
workflow. Terminal(INTERNAL): it ended without what it should have left.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from oncall.model.errors import ErrorCode, Retryable, Terminal

RPC_TIMEOUT = timedelta(seconds=10)

_REFUSALS = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.INVALID_ARGUMENT)
_CUT_OFF = (WorkflowExecutionStatus.TERMINATED, WorkflowExecutionStatus.FAILED, WorkflowExecutionStatus.TIMED_OUT)


@asynccontextmanager
async def boundary(what: str) -> AsyncIterator[None]:
    """Raises Temporal's failures as ours; `what` was asked for."""
    try:
        yield
    except WorkflowQueryFailedError as error:
        raise Retryable(
            ErrorCode.TEMPORAL_UNREACHABLE, f"{what}: the workflow did not answer: {error.message}"
        ) from None
    except WorkflowFailureError as error:
        raise Terminal(ErrorCode.INTERNAL, f"{what} ended without a result: {error.cause}") from None
    except ValidationError:
        raise Terminal(ErrorCode.INTERNAL, f"{what}: its answer is not one of this version") from None
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Terminal(ErrorCode.NOT_FOUND, _not_found(what, error)) from None
        if error.status in _REFUSALS:
            raise Terminal(ErrorCode.BAD_CONFIG, f"{what}: Temporal refuses: {error.message}") from None
        if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
            message = f"{what}: no answer from the workflow; is a worker running (`worker.py --role orchestrate`)?"
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, message) from None
        if error.status is RPCStatusCode.FAILED_PRECONDITION:
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, f"{what}: {error.message}; is a worker running?") from None
        raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, f"{what}: Temporal answered {error.message}") from None


def _not_found(what: str, error: RPCError) -> str:
    """Temporal uses one status for both; only the details tell a missing namespace from a missing workflow."""
    kinds = [detail.type_url.rpartition(".")[2] for detail in error.grpc_status.details]
    return f"{what}: {error.message}" if "NamespaceNotFoundFailure" in kinds else f"{what} does not exist"


async def check_not_cut_off(handle: WorkflowHandle[Any, Any], what: str) -> WorkflowExecutionStatus | None:
    """The workflow's status. Raises Terminal(INTERNAL) when it ended without a result: its queries would still answer
    as if it ran."""
    status = (await handle.describe(rpc_timeout=RPC_TIMEOUT)).status
    if status in _CUT_OFF:
        advice = f"`temporal workflow show --workflow-id {handle.id}` has what it did"
        raise Terminal(ErrorCode.INTERNAL, f"{what} was {status.name.lower()} from outside; {advice}")
    return status
