"""Contract: a shift goes on after its grant only with a new signed yes. A renewal that is approved is used by every
look from then on, and by the incidents that run; one that is denied ends the shift at once, one that nobody answers
ends it with the grant, and what is forged does nothing. No decision is lost, whatever the workflow does meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus

from oncall.model import names
from oncall.model.errors import ErrorCode, Retryable
from oncall.model.incident import Ending
from oncall.model.report import IncidentReport
from oncall.model.shift import ShiftPhase, ShiftStatus
from oncall.temporal.everywhere import running
from oncall.temporal.replay import replay
from oncall.trust import requests
from tests.people import Person, approvers
from tests.workflows.conftest import working
from tests.workflows.on_call import PATIENCE_S, Shift, approve_all, begin
from tests.workflows.scripted import FLAG, Script, trouble
from tests.workflows.skipping import Clocks, skipping_server

People = tuple[Person, Person]
INTERVAL = timedelta(minutes=10)
MINUTE = timedelta(minutes=1)


@dataclass
class OnCall:
    """A shift with a clock that the test moves. Its first grant ends after 85 minutes."""

    clocks: Clocks
    shift: Shift

    async def now(self) -> datetime:
        return await self.clocks.now(self.shift.handle.id)

    async def passes(self, time: timedelta) -> None:
        await self.clocks.forward(self.shift.handle.id, await self.now() + time)

    async def asked(self) -> str:
        """Let time pass until it asks whether to go on; the digest of that question."""
        grant = (await self.shift.status()).grant
        assert grant is not None
        await self.clocks.forward(self.shift.handle.id, grant.expires_at - 29 * MINUTE)
        waiting = await self.shift.waiting()
        assert waiting.request_digest != grant.request_digest
        assert requests.parse_request(waiting.request).answer_by <= grant.expires_at
        assert (await self.shift.status()).phase is ShiftPhase.RENEWING
        return waiting.request_digest

    async def answers(self, person: Person, approved: bool = True) -> None:
        await self.shift.answer(person, approved, await self.now())


async def on_call(clocks: Clocks, person: Person) -> OnCall:
    shift = await begin(
        clocks.client,
        interval_s=INTERVAL.total_seconds(),
        answer_by_s=1500,
        grant_s=3600,
        renew_before_s=1800,
        incident_answer_by_s=6 * 3600,
    )
    it = OnCall(clocks, shift)
    await it.answers(person)
    await shift.until(lambda now: now.looks == 1)
    return it


@pytest.fixture
async def clocks() -> AsyncIterator[Clocks]:
    async with skipping_server() as clocks:
        yield clocks


@pytest.fixture
async def hurried() -> AsyncIterator[Clocks]:
    """With a server that suggests to continue as new so soon that every look ends its run."""
    # The server puts off a run that follows within a second; a query in that second would find no workflow to answer.
    at_once = 'history.workflowIdReuseMinimalInterval="0s"'
    async with skipping_server("limit.historyCount.suggestContinueAsNew=14", at_once) as clocks:
        yield clocks


async def closed(clocks: Clocks, incident_id: str) -> IncidentReport:
    handle = clocks.client.get_workflow_handle(incident_id, result_type=IncidentReport)
    async with asyncio.timeout(PATIENCE_S):
        report: IncidentReport = await handle.result()
    assert (await replay((await handle.fetch_history()).to_json())).identical
    return report


async def closed_at(clocks: Clocks, workflow_id: str) -> datetime:
    events = (await clocks.client.get_workflow_handle(workflow_id).fetch_history()).events
    assert events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
    return events[-1].event_time.ToDatetime(tzinfo=(await clocks.now(workflow_id)).tzinfo)


async def test_an_approved_renewal_is_used_by_the_looks_and_by_the_incident_that_runs(
    hurried: Clocks, people: People
) -> None:
    alice, _ = people
    script = Script(approvers(alice), actions=(FLAG,))
    async with working(hurried.client, script):
        it = await on_call(hurried, alice)
        script.groups = (trouble(since=await it.now()),)
        await it.passes(INTERVAL)
        incident_id = (await it.shift.until(lambda now: bool(now.open))).open[0].incident_id
        await hurried.forward(incident_id, await it.now())
        (first,) = set(script.observed_under)

        renewed = await it.asked()
        before = await it.shift.status()
        assert set(script.observed_under) == {first}
        await it.answers(alice)
        now = await it.shift.until(lambda now: now.phase is ShiftPhase.WATCHING)
        assert now.grant is not None
        assert now.grant.request_digest == renewed
        assert before.grant is not None
        assert now.grant.expires_at > before.grant.expires_at
        looks = len(script.observed_under)
        await it.passes(3 * INTERVAL)
        assert set(script.observed_under[looks:]) == {renewed}
        # Twice for the shift; and the incident asks of each grant that it is given whether it is open.
        assert script.calls["open_read_grant"] == 4

        # The incident measures under it from then on, also when the first has ended.
        assert set(script.measured_under) <= {first}
        await hurried.forward(incident_id, before.grant.expires_at + 5 * MINUTE)
        await approve_all(hurried.client, alice, incident_id, 1, at=await hurried.now(incident_id))
        report = await closed(hurried, incident_id)
        assert report.status == Ending.RESOLVED
        assert script.measured_under[-1] == renewed
        assert [entry.request_digest for entry in report.access[:1]] == [first]
        assert renewed in [entry.request_digest for entry in report.access]
        # Twice for the shift; and the incident asks of each grant that it is given whether it is open.
        assert script.calls["open_read_grant"] == 4
        await it.shift.stop(alice, await it.now())
        await it.shift.end()


async def test_a_denied_renewal_ends_the_shift_at_once_and_says_who_and_why(hurried: Clocks, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), actions=(FLAG,))
    async with working(hurried.client, script):
        it = await on_call(hurried, alice)
        script.groups = (trouble(since=await it.now()),)
        await it.passes(INTERVAL)
        incident_id = (await it.shift.until(lambda now: bool(now.open))).open[0].incident_id
        await it.asked()
        looks, denied_at = script.calls["observe"], await it.now()
        await it.answers(alice, approved=False)
        last = await it.shift.end()
        assert last.ended == "renewal was not granted: denied by alice: scripted"
        assert (last.phase, last.waiting_for) == (ShiftPhase.OFF, ())
        assert await closed_at(hurried, it.shift.handle.id) - denied_at < MINUTE
        assert script.calls["observe"] == looks
        # What is open is handed over with what it asks, and goes on.
        assert [(each.incident_id, len(each.waiting_for)) for each in last.open] == [(incident_id, 1)]
        assert await running(hurried.client, names.INCIDENT_WORKFLOW) == [incident_id]
        await approve_all(hurried.client, alice, incident_id, 1, at=await hurried.now(incident_id))
        assert (await closed(hurried, incident_id)).status == Ending.RESOLVED
        assert script.calls["observe"] == looks


async def test_a_renewal_that_nobody_answers_ends_the_shift_with_its_grant(clocks: Clocks, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    async with working(clocks.client, script):
        it = await on_call(clocks, alice)
        await it.asked()
        grant = (await it.shift.status()).grant
        assert grant is not None
        await it.clocks.forward(it.shift.handle.id, grant.expires_at + INTERVAL)
        last = await it.shift.end()
    assert last.ended == f"the READ grant ended at {grant.expires_at:%Y-%m-%d %H:%M:%S} UTC and was not renewed"
    late = await closed_at(clocks, it.shift.handle.id) - grant.expires_at
    assert timedelta(0) <= late < MINUTE
    # 85 minutes, every ten, with the first.
    assert (last.looks, script.calls["observe"]) == (9, 9)
    history = await clocks.client.get_workflow_handle(it.shift.handle.id).fetch_history()
    assert (await replay(history.to_json())).identical


async def test_a_forged_renewal_changes_nothing(clocks: Clocks, people: People) -> None:
    alice, mallory = people
    script = Script(approvers(alice))
    async with working(clocks.client, script):
        it = await on_call(clocks, alice)
        first = script.observed_under[0]
        digest, at = await it.asked(), await it.now()
        denial = alice.decide(digest, approved=False, at=at)
        for decision in (
            mallory.decide(digest, True, at=at),
            alice.decide(first, True, at=at),
            alice.decide("sha256:" + "0" * 64, True, at=at),
            alice.decide(first, True, at=at).model_copy(update={"request_digest": digest}),
            denial.model_copy(update={"approved": True}),
            alice.decide(digest, True, at=at + timedelta(days=1)),
            alice.decide(digest, True, at=at.replace(tzinfo=None)),
        ):
            await it.shift.handle.signal(names.SIGNAL_DECIDE, decision)
        await it.shift.handle.signal(names.SIGNAL_DECIDE, "garbage")
        now = await it.shift.status()
        assert now.phase is ShiftPhase.RENEWING
        assert now.grant is not None
        assert now.grant.request_digest == first
        (asked,) = await it.shift.asks()
        assert asked.request_digest == digest
        await it.clocks.forward(it.shift.handle.id, now.grant.expires_at + MINUTE)
        last = await it.shift.end()
    assert last.ended is not None
    assert "was not renewed" in last.ended
    assert set(script.observed_under) == {first}
    assert script.calls["open_read_grant"] == 1


async def test_a_decision_or_an_order_that_comes_while_a_run_hands_over_is_not_lost(
    hurried: Clocks, people: People
) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    async with working(hurried.client, script):
        it = await on_call(hurried, alice)
        for i in range(5):
            renewed = await it.asked()
            # The look that is under way fills the run: its end and the yes reach the workflow in the same moment.
            await during_a_look(it, script, i * 0.004, partial(it.shift.answer, alice, True))
            now = await it.shift.until(lambda now: now.phase is ShiftPhase.WATCHING)
            assert now.grant is not None
            assert now.grant.request_digest == renewed
        before = await it.shift.status()
        assert before.runs > before.looks / 2
        # An order is fresh for minutes only, and the clock leaps on when the look has ended.
        await during_a_look(it, script, None, partial(it.shift.stop, alice))
        last = await it.shift.end()
    assert last.ended == "ended by alice: enough"
    assert last.looks <= before.looks + 2


async def during_a_look(
    it: OnCall, script: Script, later_s: float | None, act: Callable[[datetime], Coroutine[object, object, None]]
) -> None:
    """Do something between the beginning and the end of a look, and let that end a moment later, or once it is done."""
    looks, script.hold_look = script.calls["observe"], asyncio.Event()
    passing = asyncio.create_task(it.passes(INTERVAL))
    async with asyncio.timeout(PATIENCE_S):
        while script.calls["observe"] == looks:
            await asyncio.sleep(0.01)
    acting = asyncio.create_task(act(await it.now()))
    if later_s is None:
        await acting
    else:
        await asyncio.sleep(later_s)
    script.hold_look.set()
    script.hold_look = None
    await asyncio.gather(acting, passing)


async def test_a_survey_that_fails_does_not_keep_the_shift_from_asking(clocks: Clocks, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    async with working(clocks.client, script):
        it = await on_call(clocks, alice)
        away = Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, "the catalogue is away", 30)
        script.survey_failures = [away] * 1000
        await it.asked()
        await it.answers(alice)
        now = await it.shift.until(lambda now: now.phase is ShiftPhase.WATCHING and now.grant is not None)
        assert any("survey failed: the catalogue is away" in note for note in now.notes)
        await it.shift.stop(alice, await it.now())
        await it.shift.end()


async def test_a_cancel_ends_it_wherever_it_is_and_says_so(clocks: Clocks, people: People) -> None:
    alice, _ = people

    async def cancelled(shift: Shift) -> ShiftStatus:
        await shift.handle.cancel()
        last = await shift.end()
        assert last.ended == "cancelled through Temporal"
        return last

    script = Script(approvers(alice), hold_survey=asyncio.Event())
    async with working(clocks.client, script):
        await cancelled(await begin(clocks.client))
        assert script.hold_survey is not None
        script.hold_survey.set()
        await cancelled(await begin(clocks.client))
        it = await on_call(clocks, alice)
        script.hold_look = asyncio.Event()
        passing = asyncio.create_task(it.passes(INTERVAL))
        async with asyncio.timeout(PATIENCE_S):
            while script.calls["observe"] == 1:
                await asyncio.sleep(0.01)
        last = await cancelled(it.shift)
        assert last.notes == ()
        script.hold_look.set()
        await passing
        described = await it.shift.handle.describe()
    assert described.status is WorkflowExecutionStatus.COMPLETED
