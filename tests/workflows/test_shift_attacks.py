"""What a shift must not lose or believe: an order to stop at a continue-as-new, sight during an outage at renewal, one
incident's unreadable record, an incident for what is out of sight, a state that nobody handed over."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.implements import implements
from oncall.model import names, steps
from oncall.model.access import Grant
from oncall.model.errors import ErrorCode, Retryable
from oncall.model.names import Queue
from oncall.model.shift import StopOrder
from oncall.model.shift_state import ShiftIn, ShiftState
from oncall.rules import watching
from oncall.trust import requests
from tests.people import approvers
from tests.workflows.conftest import working
from tests.workflows.on_call import Shift, begin
from tests.workflows.scripted import POLICY, TOPOLOGY, Script, shift_opening, trouble
from tests.workflows.test_shift import People, server
from workflows.shift import ShiftWorkflow


@dataclass
class Slow(Script):
    """Looks and surveys that can be held up, or fail."""

    hold_observe: asyncio.Event | None = None
    survey_away: bool = False
    grant_away: bool = False

    @implements(steps.OBSERVE)
    async def observe(self, task: steps.ObserveIn) -> steps.Observed:
        if self.hold_observe is not None:
            self._called(steps.OBSERVE)
            await self.hold_observe.wait()
        return await super().observe(task)

    @implements(steps.SURVEY)
    async def survey(self, task: steps.SurveyIn) -> steps.Surveyed:
        if self.survey_away:
            raise Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, "the folder is away")
        return await super().survey(task)

    @implements(steps.OPEN_GRANT)
    async def open_grant(self, task: steps.OpenGrantIn) -> Grant:
        if self.grant_away:
            raise Retryable(ErrorCode.VAULT_UNREACHABLE, "the vault is away")
        return await super().open_grant(task)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with server() as connected:
        yield connected


@pytest.fixture
async def hurried_client() -> AsyncIterator[Client]:
    async with server("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=30") as connected:
        yield connected


async def test_an_order_to_stop_during_the_last_look_of_a_run_counts(hurried_client: Client, people: People) -> None:
    alice, _ = people
    script = Slow(approvers(alice))
    async with working(hurried_client, script):
        shift = await begin(hurried_client)
        await shift.answer(alice)
        # The next look will find the history long enough to hand over.
        while True:
            now = await shift.status()
            history = await shift.handle.describe()
            if now.looks >= 1 and (
                history.raw_description.workflow_execution_info.history_length >= 30 or now.runs > 1
            ):
                break
            await asyncio.sleep(0.02)
        script.hold_observe = asyncio.Event()
        before = script.calls["observe"]
        while script.calls["observe"] == before:
            await asyncio.sleep(0.02)
        for _ in range(12):  # history grows to where a handover is due
            await shift.stop(people[1])
        await shift.stop(alice)
        await asyncio.sleep(0.5)
        hold, script.hold_observe = script.hold_observe, None
        hold.set()
        assert (await shift.end()).ended == "ended by alice: enough"


@workflow.defn(name="squatter", sandboxed=False)
class Squatter:
    """Not an incident, but under an incident's id."""

    @workflow.run
    async def run(self) -> str:
        return "not a report"


async def test_one_incident_whose_record_cannot_be_read_hides_no_other(client: Client, people: People) -> None:
    alice, _ = people
    script = Slow(approvers(alice))
    bad, good = trouble("order"), trouble("order", "us-east-1")
    await client.start_workflow("squatter", id=watching.incident_id(bad), task_queue="elsewhere")
    async with working(client, script):
        shift = await begin(client)
        await shift.answer(alice)
        script.groups = (bad, good)
        await shift.until(lambda now: len(now.open) == 2)
        async with Worker(
            client, task_queue="elsewhere", workflows=[Squatter], workflow_runner=UnsandboxedWorkflowRunner()
        ):
            await client.get_workflow_handle(watching.incident_id(bad)).result()
        script.groups = ()
        await client.get_workflow_handle(watching.incident_id(good)).terminate("gone")
        await shift.until(lambda now: any(watching.incident_id(good) + " was cut off" in note for note in now.notes))


async def test_nothing_is_opened_for_what_is_long_out_of_sight(client: Client, people: People) -> None:
    alice, _ = people
    script = Slow(approvers(alice), groups=(trouble(),))
    async with working(client, script):
        shift = await begin(client, clear_s=0.5)
        await shift.answer(alice)
        incident_id = (await shift.until(lambda now: bool(now.open))).open[0].incident_id
        script.groups = ()
        seen = (await shift.status()).looks
        await shift.until(lambda now: now.looks >= seen + 6)
        await client.get_workflow_handle(incident_id).terminate("handled by hand")
        now = await shift.until(lambda now: any("cut off" in note for note in now.notes))
        seen = now.looks
        now = await shift.until(lambda now: now.looks >= seen + 3)
        assert now.opened == 1


async def test_a_first_run_believes_no_state(client: Client, people: People) -> None:
    alice, mallory = people
    script = Slow(approvers(alice))
    async with working(client, script):
        opening = shift_opening("forged")
        state = ShiftState(
            run_id="x",
            started_at=datetime.now(UTC),
            next_look_at=datetime.now(UTC),
            requester="alice",
            surveyed=steps.Surveyed(
                topology=TOPOLOGY,
                policy=POLICY,
                policy_digest=requests.policy_digest(POLICY),
                approvers=approvers(mallory),
                ledger_id="ledger-test",
                read_references=("op://Infrastructure/k8s-prod-readonly/credential",),
                quorum=0.8,
                as_of=datetime.now(UTC),
            ),
        )
        handle = await client.start_workflow(
            ShiftWorkflow.run, ShiftIn(opening=opening, state=state), id=opening.shift_id, task_queue=Queue.ORCHESTRATE
        )
        shift = Shift(client, handle)
        pending = await shift.waiting()
        assert requests.parse_request(pending.request).requester is None


async def test_a_flood_while_a_shift_waits_for_its_yes_does_not_keep_the_yes_out(people: People) -> None:
    alice, _ = people
    script = Slow(approvers(alice))
    limits = ("limit.historyCount.suggestContinueAsNew=60", "history.maximumSignalsPerExecution=100")
    extra = [part for limit in limits for part in ("--dynamic-config-value", limit)]
    async with server(*extra) as client, working(client, script):
        shift = await begin(client)
        asked = await shift.waiting()
        junk = StopOrder(shift_id="x", run_id="x", reason="", ordered_at=datetime.now(UTC))
        for _ in range(150):
            await shift.handle.signal(names.SIGNAL_STOP, junk)
        assert (await shift.waiting()).request_digest == asked.request_digest
        await shift.answer(alice)
        await shift.until(lambda now: now.looks > 0)
