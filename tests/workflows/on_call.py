"""A shift of a test, what people do to it, and the grant it would hand on."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from oncall.cli import sshkeys
from oncall.model import names
from oncall.model.access import NAMESPACE_STOP, AccessKind, AccessRequest, SharedGrant
from oncall.model.incident import PendingApproval
from oncall.model.names import Queue
from oncall.model.shift import ShiftStatus, StopOrder
from oncall.model.shift_state import ShiftIn
from oncall.rules.asking import Asker, Question, Rulebook, ask
from oncall.trust import requests
from tests.people import Person
from tests.workflows.scripted import POLICY, shift_opening
from workflows.shift import ShiftWorkflow

PATIENCE_S = 30.0


@dataclass
class Shift:
    """One running shift of a test."""

    client: Client
    handle: WorkflowHandle[ShiftWorkflow, ShiftStatus]

    async def status(self) -> ShiftStatus:
        found: ShiftStatus = await self.handle.query(names.QUERY_STATUS, result_type=ShiftStatus)
        return found

    async def until(self, condition: Callable[[ShiftStatus], bool]) -> ShiftStatus:
        """The first status that fits."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                # A run that has just begun answers a moment later.
                with contextlib.suppress(RPCError):
                    if condition(now := await self.status()):
                        return now
                await asyncio.sleep(0.05)

    async def waiting(self) -> PendingApproval:
        """The one question that waits."""
        await self.until(lambda now: bool(now.waiting_for))
        (pending,) = await self.asks()
        return pending

    async def asks(self) -> list[PendingApproval]:
        """Every question that waits."""
        found: list[PendingApproval] = await self.handle.query(names.QUERY_APPROVALS, result_type=list[PendingApproval])
        return found

    async def answer(self, person: Person, approved: bool = True, at: datetime | None = None) -> None:
        """Sign an answer to the question that waits."""
        pending = await self.waiting()
        decision = person.decide(pending.request_digest, approved, "scripted", at)
        await self.handle.signal(names.SIGNAL_DECIDE, decision)

    async def stop(self, person: Person, at: datetime | None = None, **changes: str) -> None:
        """Send an order to stop, signed by `person`."""
        run_id = (await self.status()).run_id
        now = at or datetime.now(UTC)
        order = StopOrder(shift_id=self.handle.id, run_id=run_id, reason="enough", ordered_at=now)
        order = order.model_copy(update=changes)
        signature = sshkeys.sign_in_process(person.key, requests.stop_bytes(order), NAMESPACE_STOP)
        await self.handle.signal(names.SIGNAL_STOP, order.model_copy(update={"signature": signature}))

    async def end(self) -> ShiftStatus:
        """The shift's last status."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.handle.result()


async def begin(client: Client, **changes: object) -> Shift:
    """A shift of a team of its own."""
    team = uuid.uuid4().hex[:8]
    opening = shift_opening(team, **changes)
    handle = await client.start_workflow(
        ShiftWorkflow.run, ShiftIn(opening=opening), id=opening.shift_id, task_queue=Queue.ORCHESTRATE
    )
    return Shift(client, handle)


async def approve_all(client: Client, person: Person, incident_id: str, count: int, at: datetime | None = None) -> None:
    """Say yes to the next `count` requests of an incident, once that many wait."""
    handle = client.get_workflow_handle(incident_id)
    async with asyncio.timeout(PATIENCE_S):
        while len(waiting := await handle.query(names.QUERY_APPROVALS, result_type=list[PendingApproval])) < count:
            await asyncio.sleep(0.05)
    for pending in waiting:
        await handle.signal(names.SIGNAL_DECIDE, person.decide(pending.request_digest, True, at=at))


def shared(
    person: Person, tenant: str = "test", kind: AccessKind = AccessKind.READ, approved: bool = True
) -> SharedGrant:
    """A shift's grant, as a person signed it."""
    asker = Asker(tenant=tenant, incident_id="shift-x", requester=None, severity=None, answer_by_s=600, grant_s=3600)
    book = Rulebook(policy=POLICY, policy_digest="sha256:0", ledger_id="ledger-test")
    question = Question(kind=kind, references=("op://a/b/c",), purpose="watch")
    request: AccessRequest = ask(asker, book, question, datetime.now(UTC), uuid.uuid4().hex)
    decision = person.decide(requests.request_digest(request), approved)
    return SharedGrant(request=requests.request_text(request), decisions=(decision,))
