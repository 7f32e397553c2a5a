"""The shift workflow's contract: one READ approval, one incident per problem, each followed to its end, and a hand-over
of what is open. Scripted looks on a real server; incidents are the real workflow."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from oncall.model import names
from oncall.model.access import GateStatus
from oncall.model.alert import Severity
from oncall.model.diagnosis import Conclusion
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.incident import Ending
from oncall.model.shift import ShiftPhase
from oncall.temporal import incidents
from oncall.temporal.embedded import binary
from oncall.temporal.everywhere import running
from oncall.temporal.replay import replay
from oncall.temporal.search import ensure_search_attributes
from tests.people import Person, approvers
from tests.workflows.conftest import working
from tests.workflows.on_call import approve_all, begin
from tests.workflows.scripted import Script, trouble

People = tuple[Person, Person]


@asynccontextmanager
async def server(*extra: str) -> AsyncIterator[Client]:
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=binary(), dev_server_extra_args=extra, data_converter=pydantic_data_converter
    ) as env:
        await ensure_search_attributes(env.client)
        yield env.client


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with server() as connected:
        yield connected


@pytest.fixture
async def hurried_client() -> AsyncIterator[Client]:
    """A server that suggests to continue as new after 60 events."""
    async with server("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60") as connected:
        yield connected


async def test_one_approval_one_incident_per_problem_and_no_second_question_to_read(
    client: Client, people: People
) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    async with working(client, script):
        shift = await begin(client)
        assert (await shift.waiting()).action is None
        await shift.answer(alice)
        await shift.until(lambda now: now.looks >= 3)
        assert (await shift.status()).open == ()

        script.groups = (trouble(),)
        now = await shift.until(lambda now: bool(now.open))
        incident_id = now.open[0].incident_id
        await approve_all(client, alice, incident_id, 2)
        now = await shift.until(lambda now: bool(now.closed))
        assert [each.ending for each in now.closed] == [Ending.RESOLVED]
        # It is still in sight for a few looks: that is the same problem, not the next.
        seen = now.looks
        now = await shift.until(lambda now: now.looks >= seen + 3)
        assert (now.opened, now.open) == (1, ())

        report = await incidents.report(client, incident_id)
        (read, *writes) = report.access
        assert (read.decision, read.approvers) == (GateStatus.APPROVED, ("alice",))
        assert read.request_digest == now.grant.request_digest if now.grant else False
        assert len(writes) == 2
        # The shift's own, and the incident's look whether it is open.
        assert script.calls["open_read_grant"] == 2

        script.groups = ()
        await shift.until(lambda now: now.looks >= seen + 12)
        script.groups = (trouble(since=datetime.now(UTC)),)
        now = await shift.until(lambda now: now.opened == 2)
        await shift.stop(alice)
        last = await shift.end()
    assert last.phase is ShiftPhase.OFF
    assert last.ended == "ended by alice: enough"
    # The second incident is handed over with what it asks, and goes on.
    assert [each.incident_id for each in last.open] == [incident_id]
    assert await running(client, names.INCIDENT_WORKFLOW) == [incident_id]


async def test_only_so_many_incidents_run_at_once_and_the_most_severe_is_next(client: Client, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), groups=(trouble("gateway", severity=Severity.MEDIUM),))
    async with working(client, script):
        shift = await begin(client, max_incidents=1)
        await shift.answer(alice)
        first = (await shift.until(lambda now: len(now.open) == 1)).open[0].incident_id
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        script.groups = (
            trouble("gateway", severity=Severity.MEDIUM),
            trouble("order", "us-east-1", Severity.LOW, long_ago),
            trouble("gateway", "us-east-1", Severity.CRITICAL),
        )
        now = await shift.until(lambda now: len(now.queued) == 2)
        assert [each.incident_id for each in now.open] == [first]
        await approve_all(client, alice, first, 2)
        now = await shift.until(lambda now: now.opened == 2)
        assert [each.severity for each in now.queued] == [Severity.LOW]


async def test_a_denied_or_unanswered_request_or_a_missing_reference_watches_nothing(
    client: Client, people: People
) -> None:
    alice, _ = people
    missing = Terminal(ErrorCode.ITEM_MISSING, "1 of 7 do not resolve: vault Infrastructure has no item 'x'")
    script = Script(approvers(alice), grant_failures=[missing])
    async with working(client, script):
        denied = await begin(client)
        await denied.answer(alice, approved=False)
        assert (await denied.end()).ended == "READ access was not granted: denied by alice: scripted"
        late = await begin(client, answer_by_s=1)
        last = await late.end()
        assert last.ended is not None
        assert "nobody answered by" in last.ended
        partial = await begin(client)
        await partial.answer(alice)
        last = await partial.end()
        assert last.ended is not None
        assert "has no item 'x'" in last.ended
    assert "observe" not in script.calls


async def test_an_order_to_stop_counts_only_with_an_approvers_signature_for_this_shift(
    client: Client, people: People
) -> None:
    alice, mallory = people
    script = Script(approvers(alice))
    async with working(client, script):
        shift = await begin(client)
        await shift.answer(alice)
        await shift.until(lambda now: now.looks > 0)
        await shift.stop(mallory)
        await shift.stop(alice, run_id="another")
        now = await shift.until(lambda now: now.refused_orders == 2)
        assert now.phase is ShiftPhase.WATCHING
        assert now.last_refusal == "it names another shift"
        await shift.stop(alice)
        assert (await shift.end()).phase is ShiftPhase.OFF


async def test_a_grant_that_is_gone_ends_the_shift_and_an_outage_does_not(client: Client, people: People) -> None:
    alice, _ = people
    away = Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, "the folder is away")
    script = Script(approvers(alice), observe_failures=[away, away])
    async with working(client, script):
        shift = await begin(client)
        await shift.answer(alice)
        now = await shift.until(lambda now: now.looks > 0)
        assert now.blind_since is None
        assert ["blind: observe failed: the folder is away" in note for note in now.notes] == [True, False]
        script.observe_failures.append(Terminal(ErrorCode.GRANT_REVOKED, "the grant was revoked"))
        last = await shift.end()
    assert last.ended is not None
    assert last.ended.startswith("READ access is gone: observe failed: the grant was revoked")


async def test_a_continue_as_new_forgets_nothing(hurried_client: Client, people: People) -> None:
    alice, _ = people
    client = hurried_client
    script = Script(approvers(alice), groups=(trouble(),))
    async with working(client, script):
        shift = await begin(client, interval_s=0.5)
        await shift.answer(alice)
        incident_id = (await shift.until(lambda now: bool(now.open))).open[0].incident_id
        before = await shift.until(lambda now: now.runs >= 3)
        assert [each.incident_id for each in before.open] == [incident_id]
        await approve_all(client, alice, incident_id, 2)
        now = await shift.until(lambda now: bool(now.closed))
        assert (now.opened, now.closed[0].incident_id, now.closed[0].ending) == (1, incident_id, Ending.RESOLVED)
        assert now.grant is not None
        await shift.stop(alice)
        last = await shift.end()
    assert last.run_id == before.run_id == shift.handle.first_execution_run_id
    history = await client.get_workflow_handle(
        shift.handle.id, run_id=shift.handle.first_execution_run_id
    ).fetch_history()
    assert len(history.events) < 120
    assert (await replay(history.to_json())).identical


async def test_an_incident_that_was_cut_off_from_outside_is_opened_again_while_the_problem_lasts(
    client: Client, people: People
) -> None:
    alice, _ = people
    script = Script(approvers(alice), groups=(trouble(),), conclusion=Conclusion.ROOT_CAUSE)
    async with working(client, script):
        shift = await begin(client)
        await shift.answer(alice)
        incident_id = (await shift.until(lambda now: bool(now.open))).open[0].incident_id
        await client.get_workflow_handle(incident_id).terminate("a flood")
        now = await shift.until(lambda now: now.opened == 2)
        assert [each.incident_id for each in now.open] == [incident_id]
        assert any("was cut off from outside" in note for note in now.notes)
