"""What clients do with incidents: open, look, decide, abort, read the record.

Every call raises Terminal(NOT_FOUND) for an incident that does not exist and Retryable(TEMPORAL_UNREACHABLE) when the
server does not answer.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)

from oncall.model import names
from oncall.model.access import AbortOrder
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.incident import IncidentStatus
from oncall.model.names import Queue, SearchAttribute
from oncall.model.opening import Opening
from oncall.model.progress import IncidentProgress
from oncall.model.report import IncidentReport
from oncall.rules.progress import progress as progress_of
from oncall.temporal.boundary import RPC_TIMEOUT, boundary, check_not_cut_off


@dataclass(frozen=True)
class Opened:
    """An incident that runs now; `joined` when it already ran before."""

    incident_id: str
    workflow_id: str
    run_id: str
    joined: bool


def _handle(client: Client, incident_id: str, run_id: str | None = None) -> WorkflowHandle[object, IncidentReport]:
    return client.get_workflow_handle(incident_id, run_id=run_id, result_type=IncidentReport)


async def open_incident(client: Client, opening: Opening) -> Opened:
    """Start the incident's workflow, or join the one that runs under the same id."""
    values = {SearchAttribute.SEVERITY: str(opening.severity), SearchAttribute.ANOMALY: opening.anomaly_type}
    async with boundary(f"incident {opening.incident_id}"):
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


async def status(client: Client, incident_id: str) -> IncidentStatus:
    """One look at an incident."""
    async with boundary(f"incident {incident_id}"):
        await check_not_cut_off(_handle(client, incident_id), f"incident {incident_id}")
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
    async with boundary(f"incident {incident_id}"):
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
    async with boundary(f"incident {incident_id}"):
        if await check_not_cut_off(handle, f"incident {incident_id}") is WorkflowExecutionStatus.COMPLETED:
            return progress_of(await handle.result())
        found: IncidentProgress = await handle.query(
            names.QUERY_PROGRESS, result_type=IncidentProgress, rpc_timeout=RPC_TIMEOUT
        )
    return found


async def abort(client: Client, order: AbortOrder) -> None:
    """Send a signed order to stop."""
    async with boundary(f"running incident {order.incident_id}"):
        handle = _handle(client, order.incident_id, order.run_id)
        await handle.signal(names.SIGNAL_ABORT, order, rpc_timeout=RPC_TIMEOUT)


async def report(client: Client, incident_id: str) -> IncidentReport:
    """The report: the workflow's result once it has closed, what it knows so far while it runs."""
    handle = _handle(client, incident_id)
    async with boundary(f"incident {incident_id}"):
        if await check_not_cut_off(handle, f"incident {incident_id}") is WorkflowExecutionStatus.COMPLETED:
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
    async with boundary(f"incident {incident_id}"):
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
    async with boundary(f"incident {incident_id}"):
        description = await _handle(client, incident_id).describe(rpc_timeout=RPC_TIMEOUT)
        if description.status is WorkflowExecutionStatus.COMPLETED:
            run = _handle(client, incident_id, description.run_id)
            return await run.result(), (await run.fetch_history()).to_json()
    return await report(client, incident_id), None


async def history_json(client: Client, incident_id: str, run_id: str | None = None) -> str:
    """The whole event history as Temporal's JSON, as `temporal workflow show --output json` prints it."""
    async with boundary(f"incident {incident_id}"):
        return (await _handle(client, incident_id, run_id).fetch_history()).to_json()
