"""What clients do with the questions that a shift or an incident asks people: read them, answer them.

`workflow_id` is an incident's or a shift's id. Every call raises what `oncall.temporal.boundary` says.
"""

from temporalio.client import Client

from oncall.model import names
from oncall.model.access import Decision
from oncall.model.incident import PendingApproval
from oncall.model.report import AccessEntry
from oncall.temporal.boundary import RPC_TIMEOUT, boundary, check_not_cut_off
from oncall.temporal.everywhere import ALL, Everywhere, everywhere


async def approvals(client: Client, workflow_id: str) -> tuple[PendingApproval, ...]:
    """What waits for a human there."""
    handle = client.get_workflow_handle(workflow_id)
    async with boundary(workflow_id):
        await check_not_cut_off(handle, workflow_id)
        found = await handle.query(names.QUERY_APPROVALS, result_type=list[PendingApproval], rpc_timeout=RPC_TIMEOUT)
    # A workflow may only ask about itself: what an impostor says in another's name would make that one ambiguous.
    return tuple(pending for pending in found if pending.incident_id == workflow_id)


async def all_approvals(client: Client) -> Everywhere[PendingApproval]:
    """What waits for a human anywhere."""
    asked = await everywhere(client, approvals, *ALL)
    return Everywhere(tuple(waiting for answer in asked.answers for waiting in answer), asked.silent)


async def access(client: Client, workflow_id: str) -> tuple[AccessEntry, ...]:
    """Every question so far and its answer; of a workflow that has ended as well."""
    handle = client.get_workflow_handle(workflow_id)
    async with boundary(workflow_id):
        await check_not_cut_off(handle, workflow_id)
        found = await handle.query(names.QUERY_ACCESS, result_type=list[AccessEntry], rpc_timeout=RPC_TIMEOUT)
    return tuple(found)


async def all_access(client: Client) -> Everywhere[AccessEntry]:
    """Every question of the workflows that run now."""
    asked = await everywhere(client, access, *ALL)
    return Everywhere(tuple(entry for answer in asked.answers for entry in answer), asked.silent)


async def decide(client: Client, workflow_id: str, decision: Decision) -> None:
    """Send a decision. What becomes of it is for the workflow to say: read `access` afterwards."""
    async with boundary(f"running {workflow_id}"):
        handle = client.get_workflow_handle(workflow_id)
        await handle.signal(names.SIGNAL_DECIDE, decision, rpc_timeout=RPC_TIMEOUT)
