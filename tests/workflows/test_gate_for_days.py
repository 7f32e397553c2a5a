"""A question that nobody answers for days: workers come and go, the READ access of the first hour is long over, and the
yes still applies exactly what was asked. Scripted steps on a real server that skips time."""

import asyncio
from datetime import timedelta

from temporalio.testing import WorkflowEnvironment

from oncall.model import names
from oncall.model.access import GateStatus
from oncall.model.incident import Ending, Phase
from oncall.temporal.replay import replay
from tests.people import Person, approvers
from tests.workflows.conftest import Incident, working
from tests.workflows.on_call import shared
from tests.workflows.scripted import POLICY, Script, opening
from workflows.incident import IncidentWorkflow

DAY_S = 24 * 3600
WORKERS = 7
BETWEEN = timedelta(hours=11)
# A grant may last longer than the answer may take, or nobody would be given days.
PATIENT = POLICY.model_copy(update={"max_grant_s": 14 * DAY_S})


async def answer(env: WorkflowEnvironment, running: Incident, person: Person, count: int) -> None:
    """Approve the `count` questions that wait, at the incident's own time."""
    now = await env.get_current_time(running.handle)
    for request in await running.waiting(count):
        decision = person.decide(request.request_digest, True, "at last", now)
        await running.handle.signal(names.SIGNAL_DECIDE, decision)


async def test_a_write_gate_waits_for_days_through_seven_workers(
    skipping: WorkflowEnvironment, people: tuple[Person, Person]
) -> None:
    alice, _ = people
    script = Script(approvers(alice), policy=PATIENT)
    # Under a shift's grant, which the shift renews. This one never does.
    asked = opening("incident-for-days").model_copy(update={"answer_by_s": 6 * DAY_S, "grant": shared(alice)})
    handle = await skipping.client.start_workflow(
        IncidentWorkflow.run, asked, id=asked.incident_id, task_queue=names.Queue.ORCHESTRATE
    )
    running = Incident(skipping, handle)
    async with working(skipping.client, script):
        questions = await running.waiting(2)
    events = []
    for _ in range(WORKERS):
        async with working(skipping.client, script):
            await skipping.fast_forward(handle, BETWEEN)
            assert (await running.status()).phase is Phase.AWAITING_WRITE_APPROVAL
            assert await running.waiting(2) == questions
            events.append((await handle.describe()).history_length)
    # With nothing left that may be read there is nothing to wake up for. The server notes each skip of time itself.
    assert events[-1] - events[0] <= 2 * WORKERS
    async with working(skipping.client, script):
        await answer(skipping, running, alice, 2)
        # What was read under the first yes may not be measured under it any more.
        await running.in_phase(Phase.AWAITING_READ_APPROVAL)
        await answer(skipping, running, alice, 1)
        report = await asyncio.wait_for(handle.result(), 30)
    assert report.status == Ending.RESOLVED
    assert script.applied == ["disable_flag", "kill_queries"]
    assert [entry.decision for entry in report.access] == [GateStatus.APPROVED] * 4
    assert (await replay((await handle.fetch_history()).to_json())).identical
