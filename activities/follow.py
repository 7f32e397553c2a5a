"""How incidents stand, as Temporal itself has it: a shift that lost sight of a child finds it again."""

import asyncio
from datetime import timedelta

from pydantic import ValidationError
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from activities.implements import implements
from oncall.model import names
from oncall.model.errors import ErrorCode, Retryable
from oncall.model.incident import IncidentStatus
from oncall.model.report import IncidentReport
from oncall.model.shift import FollowedIncident, IncidentState
from oncall.model.steps import FOLLOW, Followed, FollowIn, IncidentKey

ASK_TIMEOUT = timedelta(seconds=5)


class Follow:
    """Asks the server that this worker polls."""

    @implements(FOLLOW)
    async def follow(self, task: FollowIn) -> Followed:
        """How each incident stands. Raises Retryable(TEMPORAL_UNREACHABLE) when the server does not say."""
        client = activity.client()
        try:
            found = await asyncio.gather(*(_one(client, key) for key in task.incidents))
        except RPCError as error:
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, f"Temporal answered {error.status.name}") from None
        return Followed(incidents=tuple(found))


async def _one(client: Client, key: IncidentKey) -> FollowedIncident:
    handle = client.get_workflow_handle(key.incident_id, run_id=key.run_id, result_type=IncidentReport)

    def cut_off(how: str) -> FollowedIncident:
        return FollowedIncident(
            incident_id=key.incident_id, run_id=key.run_id or "", state=IncidentState.CUT_OFF, status=how, summary=how
        )

    try:
        description = await handle.describe(rpc_timeout=ASK_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return cut_off("not found")
        raise
    run_id = key.run_id or description.run_id
    match description.status:
        case WorkflowExecutionStatus.RUNNING:
            return await _running(client, key.incident_id, run_id)
        case WorkflowExecutionStatus.COMPLETED:
            try:
                report = await handle.result(rpc_timeout=ASK_TIMEOUT)
            except WorkflowFailureError as error:
                return cut_off(type(error.cause).__name__)
            except ValidationError:
                return cut_off("its result is no report of this version")
            summary = report.diagnosis.summary if report.diagnosis else ""
            return FollowedIncident(
                incident_id=key.incident_id,
                run_id=run_id,
                state=IncidentState.CLOSED,
                status=report.status,
                summary=summary,
                closed_at=report.closed_at,
            )
        case other:
            return cut_off(other.name.lower() if other else "unknown")


async def _running(client: Client, incident_id: str, run_id: str) -> FollowedIncident:
    handle = client.get_workflow_handle(incident_id, run_id=run_id)
    stands = FollowedIncident(
        incident_id=incident_id, run_id=run_id, state=IncidentState.RUNNING, status="running", answered=False
    )
    try:
        status: IncidentStatus = await handle.query(
            names.QUERY_STATUS, result_type=IncidentStatus, rpc_timeout=ASK_TIMEOUT
        )
    except (RPCError, WorkflowQueryFailedError, ValidationError):
        # It runs, and its worker is busy, away or of another version: that is all there is to know.
        return stands
    update = {
        "status": status.status,
        "answered": True,
        "waiting_for": status.waiting_for,
        "summary": status.summary,
    }
    return stands.model_copy(update=update)
