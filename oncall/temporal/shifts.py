"""What clients do with shifts: start, look, stop, and take the grant that incidents may use.

Every call raises what `oncall.temporal.boundary` says.
"""

import asyncio
from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from oncall.model import names
from oncall.model.access import SharedGrant
from oncall.model.names import Queue
from oncall.model.shift import ShiftOpening, ShiftStatus, StopOrder
from oncall.model.shift_state import ShiftIn
from oncall.temporal.boundary import RPC_TIMEOUT, boundary, check_not_cut_off
from oncall.temporal.everywhere import everywhere


@dataclass(frozen=True)
class Started:
    """A shift that runs now; `already` when it ran before this call."""

    shift_id: str
    run_id: str
    already: bool


def _handle(client: Client, shift_id: str) -> WorkflowHandle[object, ShiftStatus]:
    return client.get_workflow_handle(shift_id, result_type=ShiftStatus)


async def start(client: Client, opening: ShiftOpening) -> Started:
    """Put a team on call, unless it is."""
    async with boundary(f"shift {opening.shift_id}"):
        try:
            handle = await client.start_workflow(
                names.SHIFT_WORKFLOW,
                ShiftIn(opening=opening),
                id=opening.shift_id,
                task_queue=Queue.ORCHESTRATE,
                result_type=ShiftStatus,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"team {opening.team} on call",
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError as error:
            return Started(opening.shift_id, error.run_id or "", already=True)
        return Started(opening.shift_id, handle.first_execution_run_id or "", already=False)


async def status(client: Client, shift_id: str) -> ShiftStatus:
    """One look at a shift; its last status once it is off."""
    handle = _handle(client, shift_id)
    async with boundary(f"shift {shift_id}"):
        if await check_not_cut_off(handle, f"shift {shift_id}") is WorkflowExecutionStatus.COMPLETED:
            return await handle.result(rpc_timeout=RPC_TIMEOUT)
        found: ShiftStatus = await handle.query(names.QUERY_STATUS, result_type=ShiftStatus, rpc_timeout=RPC_TIMEOUT)
    return found


async def stop(client: Client, order: StopOrder) -> None:
    """Send a signed order to end a shift."""
    async with boundary(f"running shift {order.shift_id}"):
        await _handle(client, order.shift_id).signal(names.SIGNAL_STOP, order, rpc_timeout=RPC_TIMEOUT)


async def off(client: Client, shift_id: str, timeout_s: float) -> ShiftStatus | None:
    """The last status of a shift that is about to end; None when it does not within `timeout_s`."""
    async with boundary(f"shift {shift_id}"):
        try:
            async with asyncio.timeout(timeout_s):
                return await _handle(client, shift_id).result()
        except TimeoutError:
            return None


async def latest(client: Client) -> ShiftStatus | None:
    """The last status of the shift that began last, whoever's it was; None when there never was one."""
    query = f"WorkflowType = '{names.SHIFT_WORKFLOW}' AND TaskQueue = '{Queue.ORCHESTRATE}'"
    async with boundary("the list of shifts"):
        found = [each.id async for each in client.list_workflows(query, limit=1, rpc_timeout=RPC_TIMEOUT)]
    return await status(client, found[0]) if found else None


async def grant(client: Client) -> SharedGrant | None:
    """The READ grant of a shift that is on, for an incident that a person opens; None when there is none.

    A shift that does not answer counts as none: the incident asks for access of its own then.
    """

    async def ask(client: Client, shift_id: str) -> list[SharedGrant]:
        async with boundary(f"shift {shift_id}"):
            found: list[SharedGrant] = await _handle(client, shift_id).query(
                names.QUERY_GRANT, result_type=list[SharedGrant], rpc_timeout=RPC_TIMEOUT
            )
        return found

    answers = (await everywhere(client, ask, names.SHIFT_WORKFLOW)).answers
    return next((shared for answer in answers for shared in answer), None)
