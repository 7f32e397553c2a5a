"""What clients do with incidents: open, look, decide, abort, read the record.

Every call raises Terminal(NOT_FOUND) for an incident that does not exist and Retryable(TEMPORAL_UNREACHABLE) when the
server does not answer.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from oncall.model import names
from oncall.model.access import AbortOrder, Decision
from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from oncall.model.incident import IncidentStatus, PendingApproval
from oncall.model.names import Queue, SearchAttribute
from oncall.model.opening import Opening
from oncall.model.progress import IncidentProgress
from oncall.model.report import IncidentReport
from oncall.rules.progress import progress as progress_of

RPC_TIMEOUT = timedelta(seconds=10)
AT_ONCE = 64
"""Incidents that are asked at the same time when all are."""

REFUSALS = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.INVALID_ARGUMENT)
"""What asking again does not change."""

_CUT_OFF = (WorkflowExecutionStatus.TERMINATED, WorkflowExecutionStatus.FAILED, WorkflowExecutionStatus.TIMED_OUT)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Opened:
    """An incident that runs now; `joined` when it already ran before."""

    incident_id: str
    workflow_id: str
    run_id: str
    joined: bool


@dataclass(frozen=True)
class Everywhere(Generic[Answer]):
    """What the running incidents answered, newest first, and the ids of those that did not answer."""

    answers: tuple[Answer, ...]
    silent: tuple[str, ...]


@asynccontextmanager
async def _boundary(what: str) -> AsyncIterator[None]:
    try:
        yield
    except WorkflowQueryFailedError as error:
        raise Retryable(
            ErrorCode.TEMPORAL_UNREACHABLE, f"{what}: the workflow did not answer: {error.message}"
        ) from None
    except WorkflowFailureError as error:
        raise Terminal(ErrorCode.INTERNAL, f"{what} ended without a report: {error.cause}") from None
    except ValidationError:
        raise Terminal(ErrorCode.INTERNAL, f"{what}: its answer is not one of this version") from None
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Terminal(ErrorCode.NOT_FOUND, _not_found(what, error)) from None
        if error.status in REFUSALS:
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


def _handle(client: Client, incident_id: str, run_id: str | None = None) -> WorkflowHandle[object, IncidentReport]:
    return client.get_workflow_handle(incident_id, run_id=run_id, result_type=IncidentReport)


async def open_incident(client: Client, opening: Opening) -> Opened:
    """Start the incident's workflow, or join the one that runs under the same id."""
    values = {SearchAttribute.SEVERITY: str(opening.severity), SearchAttribute.ANOMALY: opening.anomaly_type}
    async with _boundary(f"incident {opening.incident_id}"):
        handle = await client.start_workflow(
            names.INCIDENT_WORKFLOW,
            opening,
            id=opening.incident_id,
            task_queue=Queue.ORCHESTRATE,
            result_type=IncidentReport,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            request_eager_start=False,
            static_summary=f"{opening.severity} {opening.anomaly_type}",
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
            ),
        )
        description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        joined = (await _first_opening(handle)).opened_at != opening.opened_at
        return Opened(opening.incident_id, handle.id, description.run_id, joined)


async def _first_opening(handle: WorkflowHandle[object, IncidentReport]) -> Opening:
    async for event in handle.fetch_history_events(page_size=1):
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        return Opening.model_validate_json(payloads[0].data)
    raise Terminal(ErrorCode.NOT_FOUND, f"incident {handle.id} has no history")


async def _check_not_cut_off(handle: WorkflowHandle[object, IncidentReport]) -> WorkflowExecutionStatus | None:
    """The workflow's status. Raises Terminal(INTERNAL) when it ended without a report: its queries would still answer
    as if it ran."""
    status = (await handle.describe(rpc_timeout=RPC_TIMEOUT)).status
    if status in _CUT_OFF:
        advice = f"`temporal workflow show --workflow-id {handle.id}` has what it did"
        raise Terminal(ErrorCode.INTERNAL, f"incident {handle.id} was {status.name.lower()} from outside; {advice}")
    return status


async def status(client: Client, incident_id: str) -> IncidentStatus:
    """One look at an incident."""
    async with _boundary(f"incident {incident_id}"):
        await _check_not_cut_off(_handle(client, incident_id))
        found: IncidentStatus = await _handle(client, incident_id).query(
            names.QUERY_STATUS, result_type=IncidentStatus, rpc_timeout=RPC_TIMEOUT
        )
    return found


@dataclass(frozen=True)
class Outline:
    """What Temporal itself knows of an incident's run, without a worker. `status` is its phase, or its ending; empty
    texts were not recorded yet."""

    incident_id: str
    run_id: str
    opened_at: datetime
    status: str
    severity: str
    anomaly_type: str


async def outline(client: Client, incident_id: str) -> Outline:
    """The newest run of an incident, as far as Temporal itself can tell.

    Raises Terminal(NOT_FOUND) for another workflow's id: it would never answer.
    """
    async with _boundary(f"incident {incident_id}"):
        found = await _handle(client, incident_id).describe(rpc_timeout=RPC_TIMEOUT)
    if found.workflow_type != names.INCIDENT_WORKFLOW:
        raise Terminal(ErrorCode.NOT_FOUND, f"{incident_id} is a {found.workflow_type}, not an incident")

    def text(name: SearchAttribute) -> str:
        return found.typed_search_attributes.get(SearchAttributeKey.for_keyword(name)) or ""

    status, severity, anomaly = map(text, (SearchAttribute.STATUS, SearchAttribute.SEVERITY, SearchAttribute.ANOMALY))
    return Outline(incident_id, found.run_id, found.start_time, status, severity, anomaly)


async def progress(client: Client, incident_id: str, run_id: str | None = None) -> IncidentProgress:
    """How far an incident has come. One whose workflow has completed tells it without a worker."""
    handle = _handle(client, incident_id, run_id)
    async with _boundary(f"incident {incident_id}"):
        if await _check_not_cut_off(handle) is WorkflowExecutionStatus.COMPLETED:
            return progress_of(await handle.result())
        found: IncidentProgress = await handle.query(
            names.QUERY_PROGRESS, result_type=IncidentProgress, rpc_timeout=RPC_TIMEOUT
        )
    return found


async def approvals(client: Client, incident_id: str) -> tuple[PendingApproval, ...]:
    """What waits for a human in one incident."""
    async with _boundary(f"incident {incident_id}"):
        await _check_not_cut_off(_handle(client, incident_id))
        found = await _handle(client, incident_id).query(
            names.QUERY_APPROVALS, result_type=list[PendingApproval], rpc_timeout=RPC_TIMEOUT
        )
    # A workflow may only ask about itself: what an impostor says in another's name would make that one ambiguous.
    return tuple(pending for pending in found if pending.incident_id == incident_id)


async def running(client: Client) -> list[str]:
    """The ids of the incidents that run now, newest first."""
    # The queue as well: anybody who may start workflows can start one of this type where no worker of ours polls.
    query = (
        f"WorkflowType = '{names.INCIDENT_WORKFLOW}' AND ExecutionStatus = 'Running'"
        f" AND TaskQueue = '{Queue.ORCHESTRATE}'"
    )
    async with _boundary("the list of incidents"):
        return [execution.id async for execution in client.list_workflows(query, rpc_timeout=RPC_TIMEOUT)]


async def everywhere(client: Client, ask: Callable[[Client, str], Awaitable[Answer]]) -> Everywhere[Answer]:
    """`ask` of every running incident, AT_ONCE at a time. One that does not answer keeps nobody else from answering.

    Raises Retryable(TEMPORAL_UNREACHABLE) only when the incidents cannot even be listed.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def one(incident_id: str) -> Answer | OncallError:
        async with places:
            try:
                return await ask(client, incident_id)
            except OncallError as error:
                return error

    found = await running(client)
    answers = await asyncio.gather(*(one(incident_id) for incident_id in found))
    return Everywhere(
        tuple(answer for answer in answers if not isinstance(answer, OncallError)),
        # One that has closed since it was listed is not silent.
        tuple(
            incident_id
            for incident_id, answer in zip(found, answers, strict=True)
            if isinstance(answer, OncallError) and answer.code is not ErrorCode.NOT_FOUND
        ),
    )


async def all_approvals(client: Client) -> Everywhere[PendingApproval]:
    """What waits for a human anywhere."""
    asked = await everywhere(client, approvals)
    return Everywhere(tuple(waiting for answer in asked.answers for waiting in answer), asked.silent)


async def decide(client: Client, incident_id: str, decision: Decision) -> None:
    """Send a decision. What becomes of it is for the workflow to say: read the report or the approvals afterwards."""
    async with _boundary(f"running incident {incident_id}"):
        await _handle(client, incident_id).signal(names.SIGNAL_DECIDE, decision, rpc_timeout=RPC_TIMEOUT)


async def abort(client: Client, order: AbortOrder) -> None:
    """Send a signed order to stop."""
    async with _boundary(f"running incident {order.incident_id}"):
        handle = _handle(client, order.incident_id, order.run_id)
        await handle.signal(names.SIGNAL_ABORT, order, rpc_timeout=RPC_TIMEOUT)


async def report(client: Client, incident_id: str) -> IncidentReport:
    """The report: the workflow's result once it has closed, what it knows so far while it runs."""
    handle = _handle(client, incident_id)
    async with _boundary(f"incident {incident_id}"):
        if await _check_not_cut_off(handle) is WorkflowExecutionStatus.COMPLETED:
            return await handle.result()
        found: IncidentReport = await handle.query(
            names.QUERY_REPORT, result_type=IncidentReport, rpc_timeout=RPC_TIMEOUT
        )
    return found


async def result(client: Client, incident_id: str, run_id: str, timeout_s: float) -> IncidentReport:
    """The report of a run that is about to close, once its workflow has completed and its history is whole.

    Raises Retryable(TEMPORAL_UNREACHABLE) when that takes longer than `timeout_s`, Terminal(INTERNAL) when the workflow
    failed or was terminated.
    """
    async with _boundary(f"incident {incident_id}"):
        try:
            async with asyncio.timeout(timeout_s):
                return await _handle(client, incident_id, run_id).result()
        except TimeoutError:
            message = f"incident {incident_id} did not complete within {timeout_s:.0f} s; is a worker running?"
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, message) from None


async def record(client: Client, incident_id: str) -> tuple[IncidentReport, str | None]:
    """The report and, once the workflow has completed, its whole history as `history_json` gives it; else None.

    A phase of `closed` is not enough: the workflow still writes its report then.
    """
    async with _boundary(f"incident {incident_id}"):
        description = await _handle(client, incident_id).describe(rpc_timeout=RPC_TIMEOUT)
        if description.status is WorkflowExecutionStatus.COMPLETED:
            run = _handle(client, incident_id, description.run_id)
            return await run.result(), (await run.fetch_history()).to_json()
    return await report(client, incident_id), None


async def history_json(client: Client, incident_id: str, run_id: str | None = None) -> str:
    """The whole event history as Temporal's JSON, as `temporal workflow show --output json` prints it."""
    async with _boundary(f"incident {incident_id}"):
        return (await _handle(client, incident_id, run_id).fetch_history()).to_json()
