"""The incident workflow's contract: phases in order, each ending honest, and only signatures move a gate."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType

from oncall.cli import sshkeys
from oncall.model import names
from oncall.model.access import NAMESPACE_TRIGGER, Decision, GateStatus
from oncall.model.action import Outcome
from oncall.model.diagnosis import Conclusion
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.incident import Ending, Phase
from oncall.model.names import Queue
from oncall.model.opening import Opening
from oncall.model.policy import Policy, Verdict
from oncall.temporal.replay import replay
from oncall.trust import requests
from tests.people import Person, approvers
from tests.workflows.conftest import Incident, Open, working
from tests.workflows.scripted import POLICY, Script

GOLDEN = Path(__file__).parent / "golden"
People = tuple[Person, Person]


async def keep(incident: Incident, name: str, update_goldens: bool) -> None:
    """Every history a test makes must replay; with --update-goldens it becomes the golden one of that name."""
    history = (await incident.handle.fetch_history()).to_json()
    assert (await replay(history)).identical
    if update_goldens:
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / f"{name}.json").write_text(history + "\n")


async def test_an_approved_incident_runs_every_phase_and_resolves(
    incident: Open, people: People, update_goldens: bool
) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    running = await incident(script)
    (read,) = await running.waiting()
    assert (await running.status()).phase is Phase.AWAITING_READ_APPROVAL
    await running.decide(alice, read, approved=True)
    first, second = await running.waiting(2)
    assert first.action is not None
    assert first.action.parameters.type == "disable_flag"
    # Answered in the other order, they still run in the order that the diagnosis put them in.
    await running.decide(alice, second, approved=True)
    await running.decide(alice, first, approved=True)
    report = await running.report()

    assert report.status == Ending.RESOLVED
    assert script.applied == ["disable_flag", "kill_queries"]
    assert (report.coverage.planned, report.coverage.completed) == (20, 20)
    assert report.verification is not None
    assert report.verification.recovered
    assert [entry.decision for entry in report.access] == [GateStatus.APPROVED] * 3
    assert all(entry.approvers == ("alice",) for entry in report.access)
    assert [span.phase for span in report.phases] == [
        Phase.RECEIVED,
        Phase.AWAITING_READ_APPROVAL,
        Phase.INVESTIGATING,
        Phase.SYNTHESIZING,
        Phase.AWAITING_WRITE_APPROVAL,
        Phase.REMEDIATING,
        Phase.AWAITING_WRITE_APPROVAL,
        Phase.REMEDIATING,
        Phase.VERIFYING,
        Phase.CLOSED,
    ]
    assert report.usage.secret_requests == 20
    await keep(running, "resolved", update_goldens)


@pytest.mark.parametrize(
    ("improved", "expected", "golden"),
    [(True, Ending.MITIGATED, "mitigated"), (False, Ending.UNRESOLVED, "not_recovered")],
)
async def test_without_measured_recovery_nothing_is_resolved(
    incident: Open, people: People, update_goldens: bool, improved: bool, expected: Ending, golden: str
) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice), recovered=False, improved=improved))
    await running.approve(alice)
    await running.approve(alice, 2)
    assert (await running.report()).status == expected
    await keep(running, golden, update_goldens)


async def test_one_denied_action_leaves_manual_steps_and_the_other_runs(
    incident: Open, people: People, update_goldens: bool
) -> None:
    alice, _ = people
    script = Script(approvers(alice), recovered=False)
    running = await incident(script)
    await running.approve(alice)
    flag, kill = await running.waiting(2)
    await running.decide(alice, flag, approved=False, reason="a release depends on it")
    await running.decide(alice, kill, approved=True)
    report = await running.report()
    assert script.applied == ["kill_queries"]
    denied, ran = report.actions
    assert (denied.outcome, denied.manual_steps) == (Outcome.DENIED, ("turn the flag off by hand",))
    assert (ran.outcome, ran.manual_steps) == (Outcome.SUCCEEDED, ())
    assert report.access[1].reason == "a release depends on it"
    assert report.status == Ending.MITIGATED
    await keep(running, "denied_one", update_goldens)


async def test_a_denied_read_request_ends_the_incident_with_nothing_looked_at(
    incident: Open, people: People, update_goldens: bool
) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    running = await incident(script)
    await running.decide(alice, (await running.waiting())[0], approved=False)
    report = await running.report()
    assert report.status == Ending.UNRESOLVED
    assert "investigate" not in script.calls
    assert "open_read_grant" not in script.calls
    await keep(running, "read_denied", update_goldens)


@pytest.mark.parametrize(
    ("conclusion", "ending"),
    [(Conclusion.NO_FAULT, Ending.NO_FAULT), (Conclusion.INCONCLUSIVE, Ending.UNRESOLVED)],
)
async def test_without_a_root_cause_no_write_access_is_asked(
    incident: Open, people: People, update_goldens: bool, conclusion: Conclusion, ending: Ending
) -> None:
    alice, _ = people
    script = Script(approvers(alice), conclusion=conclusion)
    running = await incident(script)
    await running.approve(alice)
    report = await running.report()
    assert report.status == ending
    assert len(report.access) == 1
    assert "remediate" not in script.calls
    await keep(running, str(conclusion), update_goldens)


async def test_nobody_answers_and_nothing_is_changed(
    skipping_incident: Open, people: People, update_goldens: bool
) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    running = await skipping_incident(script)
    await running.approve(alice)
    await running.waiting(2)
    await running.env.fast_forward(running.handle, timedelta(minutes=31))
    report = await running.report()
    assert report.status == Ending.UNRESOLVED
    assert [entry.decision for entry in report.access[1:]] == [GateStatus.EXPIRED] * 2
    assert [entry.outcome for entry in report.actions] == [Outcome.EXPIRED] * 2
    assert all(entry.manual_steps for entry in report.actions)
    assert script.applied == []
    await keep(running, "expired", update_goldens)


async def test_a_read_request_nobody_answers_expires(skipping_incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    running = await skipping_incident(script)
    await running.waiting()
    await running.env.fast_forward(running.handle, timedelta(minutes=29))
    assert (await running.status()).phase is Phase.AWAITING_READ_APPROVAL
    await running.env.fast_forward(running.handle, timedelta(minutes=2))
    assert (await running.report()).status == Ending.UNRESOLVED
    assert "investigate" not in script.calls


async def test_a_stranger_a_forger_and_a_repeater_change_nothing(
    incident: Open, people: People, update_goldens: bool
) -> None:
    alice, mallory = people
    script = Script(approvers(alice))
    running = await incident(script)
    (read,) = await running.waiting()
    signal = running.handle.signal
    await running.decide(mallory, read, approved=True)
    unsigned = Decision(
        request_digest=read.request_digest, approved=True, decided_at=mallory.decide("x", True).decided_at
    )
    await signal(names.SIGNAL_DECIDE, unsigned)
    await signal(names.SIGNAL_DECIDE, alice.decide("sha256:" + "0" * 64, True))
    denial = alice.decide(read.request_digest, approved=False)
    await signal(names.SIGNAL_DECIDE, denial.model_copy(update={"approved": True}))
    await signal(names.SIGNAL_DECIDE, "garbage")
    assert (await running.waiting())[0].request_digest == read.request_digest
    assert "open_read_grant" not in script.calls
    await running.decide(alice, read, approved=True)
    await running.decide(alice, read, approved=False)
    await running.approve(alice, 2)
    report = await running.report()
    assert report.access[0].decision is GateStatus.APPROVED
    assert report.access[0].refused_decisions == 3
    assert report.notes == ("1 decisions named no request of this incident",)
    await keep(running, "hostile_decisions", update_goldens)


async def test_a_vault_that_is_down_delays_and_loses_nothing(incident: Open, people: People) -> None:
    alice, _ = people
    down = Retryable(ErrorCode.VAULT_UNREACHABLE, "the vault at http://v does not answer")
    script = Script(approvers(alice), conclusion=Conclusion.NO_FAULT, grant_failures=[down, down])
    running = await incident(script)
    await running.approve(alice)
    assert (await running.report()).status == Ending.NO_FAULT
    assert script.calls["open_read_grant"] == 3


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (ErrorCode.VAULT_REFUSED, "the vault at http://v refuses this worker's token"),
        (ErrorCode.ITEM_MISSING, "1 of 20 do not resolve: vault Infrastructure has no item x"),
    ],
)
async def test_a_grant_that_cannot_open_ends_with_one_line_that_says_why(
    incident: Open, people: People, code: ErrorCode, line: str
) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice), grant_failures=[Terminal(code, line)]))
    await running.approve(alice)
    report = await running.report()
    assert report.status == Ending.UNRESOLVED
    assert report.notes == (f"open_read_grant failed: {line} ({code})",)


async def test_failed_agents_are_counted(incident: Open, people: People) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice), conclusion=Conclusion.INCONCLUSIVE, failing_agents=3))
    await running.approve(alice)
    report = await running.report()
    assert (report.coverage.planned, report.coverage.completed, report.coverage.failed) == (20, 17, 3)
    assert report.notes == ("3 agents: investigate failed: scripted failure (probe_failed)",)


async def test_a_signed_abort_stops_at_the_next_safe_point(
    incident: Open, people: People, update_goldens: bool
) -> None:
    alice, mallory = people
    script = Script(approvers(alice))
    running = await incident(script)
    await running.waiting()
    status = await running.status()
    await running.handle.signal(names.SIGNAL_ABORT, mallory.abort(status.incident_id, status.run_id, "x"))
    await running.handle.signal(names.SIGNAL_ABORT, alice.abort(status.incident_id, "another run", "x"))
    assert (await running.status()).phase is Phase.AWAITING_READ_APPROVAL
    await running.handle.signal(names.SIGNAL_ABORT, alice.abort(status.incident_id, status.run_id, "planned work"))
    report = await running.report()
    assert report.status == Ending.ABORTED
    assert report.notes[0].startswith("2 orders to abort were refused")
    assert report.notes[-1] == "aborted by alice: planned work"
    assert report.access[0].decision is GateStatus.EXPIRED
    assert (await running.status()).waiting_for == ()
    assert "investigate" not in script.calls
    await keep(running, "aborted", update_goldens)


async def test_a_flood_of_bad_orders_does_not_hide_the_good_one(incident: Open, people: People) -> None:
    alice, mallory = people
    running = await incident(Script(approvers(alice)))
    await running.waiting()
    status = await running.status()
    bad = mallory.abort(status.incident_id, status.run_id, "x")
    for _ in range(60):
        await running.handle.signal(names.SIGNAL_ABORT, bad)
    old = alice.abort(status.incident_id, status.run_id, "y", at=datetime.now(UTC) - timedelta(hours=1))
    await running.handle.signal(names.SIGNAL_ABORT, old)
    assert (await running.status()).phase is Phase.AWAITING_READ_APPROVAL
    await running.handle.signal(names.SIGNAL_ABORT, alice.abort(status.incident_id, status.run_id, "enough"))
    report = await running.report()
    assert report.notes[-1] == "aborted by alice: enough"
    assert len(report.notes) == 2


async def test_a_cancel_never_interrupts_an_action_and_nothing_follows_it(
    incident: Open, people: People, update_goldens: bool
) -> None:
    alice, _ = people
    hold = asyncio.Event()
    script = Script(approvers(alice), hold_remedy=hold)
    running = await incident(script)
    await running.approve(alice)
    await running.approve(alice, 2)
    await running.in_phase(Phase.REMEDIATING)
    await running.handle.cancel()
    await asyncio.sleep(0.5)
    hold.set()
    report = await running.report()
    assert report.status == Ending.ABORTED
    assert script.applied == ["disable_flag"]
    assert [entry.outcome for entry in report.actions] == [Outcome.SUCCEEDED, Outcome.SKIPPED]
    assert report.actions[1].manual_steps
    await keep(running, "cancelled_in_an_action", update_goldens)


async def test_a_cancel_at_a_gate_still_closes_with_a_report(incident: Open, people: People) -> None:
    running = await incident(Script(approvers(people[0])))
    await running.waiting()
    await running.handle.cancel()
    assert (await running.report()).status == Ending.ABORTED


async def test_a_cancel_in_a_wave_still_closes_with_a_report(incident: Open, people: People) -> None:
    alice, _ = people
    hold = asyncio.Event()
    script = Script(approvers(alice), hold_investigation=hold)
    running = await incident(script)
    (read,) = await running.waiting()
    await running.decide(alice, read, approved=True)
    async with asyncio.timeout(30):
        # The phase begins with a survey: a cancel in that finds no wave.
        while not script.agents:
            await asyncio.sleep(0.05)
    await running.handle.cancel()
    hold.set()
    report = await running.report()
    assert report.status == Ending.ABORTED
    assert report.notes[-1] == "cancelled through Temporal"
    # Some may have answered before the cancel came.
    assert report.coverage.completed + report.coverage.skipped == 20
    assert report.coverage.failed == 0


async def _answered(running: Incident) -> int:
    history = await running.handle.fetch_history()
    return sum(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED for event in history.events)


async def test_agents_whose_answers_come_together_with_a_cancel_are_counted(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), hold_investigation=asyncio.Event())
    assert script.hold_investigation is not None
    running = await incident(script, queues=tuple(queue for queue in Queue if queue is not Queue.ORCHESTRATE))
    async with working(running.env.client, script, Queue.ORCHESTRATE), asyncio.timeout(30):
        await running.approve(alice)
        while len(script.agents) < 20:
            await asyncio.sleep(0.05)
    # Nobody runs the workflow now: it hears of the answers and of the cancel at once.
    script.hold_investigation.set()
    await running.handle.cancel()
    async with asyncio.timeout(30):
        while await _answered(running) < 20:
            await asyncio.sleep(0.05)
    async with working(running.env.client, script, Queue.ORCHESTRATE):
        report = await running.report()
    assert report.status == Ending.ABORTED
    assert report.coverage.completed + report.coverage.skipped == 20


@pytest.mark.parametrize("longest_s", [3600, 600])
async def test_a_grant_never_asks_for_longer_than_the_policy_allows(
    incident: Open, people: People, longest_s: int
) -> None:
    alice, _ = people
    script = Script(approvers(alice), policy=POLICY.model_copy(update={"max_grant_s": longest_s}))
    running = await incident(script)
    (read,) = await running.waiting()
    request = requests.parse_request(read.request)
    longest = timedelta(seconds=longest_s)
    assert request.grant_expires_at - request.not_before == longest
    # A yes at the last moment still opens something, and no broker finds the times out of order.
    assert request.grant_expires_at - request.answer_by >= longest / 2
    assert request.not_before < request.answer_by
    await running.handle.cancel()
    await running.report()


@pytest.mark.parametrize(
    ("changes", "requester"),
    [
        ({}, "alice"),
        ({"opened_at": datetime(2026, 1, 1, tzinfo=UTC)}, None),
        ({"incident_id": "incident-other"}, None),
    ],
)
async def test_a_copied_opening_has_no_requester(
    incident: Open, people: People, changes: dict[str, object], requester: str | None
) -> None:
    alice, _ = people

    def signed(opening: Opening) -> Opening:
        opening = opening.model_copy(update=changes)
        signature = sshkeys.sign_in_process(alice.key, requests.opening_bytes(opening), NAMESPACE_TRIGGER)
        return opening.model_copy(update={"signature": signature})

    running = await incident(Script(approvers(alice)), signed)
    (read,) = await running.waiting()
    assert requests.parse_request(read.request).requester == requester


async def test_a_policy_that_forbids_reading_asks_nobody(incident: Open, people: People) -> None:
    script = Script(approvers(people[0]), policy=Policy(version=1, read=Verdict.FORBIDDEN))
    report = await (await incident(script)).report()
    assert report.status == Ending.UNRESOLVED
    assert report.access[0].decision is GateStatus.DENIED
    assert "investigate" not in script.calls


async def test_a_recording_needs_no_access_and_has_no_write_side(
    incident: Open, people: People, update_goldens: bool
) -> None:
    script = Script(approvers(people[0]))
    running = await incident(script, lambda opening: opening.model_copy(update={"recording": "case-1"}))
    report = await running.report()
    assert [entry.decision for entry in report.access] == [GateStatus.NOT_REQUIRED]
    assert report.actions == ()
    assert report.diagnosis is not None
    assert "remediate" not in script.calls
    await keep(running, "recording", update_goldens)


async def test_an_order_that_comes_before_the_survey_is_heard_after_it(incident: Open, people: People) -> None:
    alice, mallory = people
    script = Script(approvers(alice), hold_survey=asyncio.Event())
    running = await incident(script)
    status = await running.status()
    for person in (mallory, alice):
        await running.handle.signal(names.SIGNAL_ABORT, person.abort(status.incident_id, status.run_id, "early"))
    await running.handle.signal(names.SIGNAL_DECIDE, alice.decide("sha256:" + "0" * 64, True))
    assert (await running.status()).phase is Phase.RECEIVED
    assert script.hold_survey is not None
    script.hold_survey.set()
    report = await running.report()
    assert (report.status, report.access) == (Ending.ABORTED, ())
    assert report.abort_orders.honoured == "aborted by alice: early"
    assert report.abort_orders.refused == 1
    assert "1 decisions named no request of this incident" in report.notes


async def test_a_stop_while_the_vault_is_awaited_sends_no_agent(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), hold_grant=asyncio.Event())
    running = await incident(script)
    await running.approve(alice)
    status = await running.status()
    order = alice.abort(status.incident_id, status.run_id, "enough")
    for _ in range(3):
        await running.handle.signal(names.SIGNAL_ABORT, order)
    assert script.hold_grant is not None
    script.hold_grant.set()
    report = await running.report()
    assert report.status == Ending.ABORTED
    assert "investigate" not in script.calls
    # Copies of an honoured order, which anybody who reads history can send, do not grow the report.
    assert report.notes == ("aborted by alice: enough",)


async def test_a_write_yes_leaves_time_to_measure_recovery_under_the_read_grant(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), policy=POLICY.model_copy(update={"max_grant_s": 3600}))
    running = await incident(script)
    (read,) = await running.waiting()
    await running.decide(alice, read, approved=True)
    until = requests.parse_request(read.request).grant_expires_at
    for pending in await running.waiting(2):
        assert requests.parse_request(pending.request).answer_by <= until - timedelta(minutes=5)


async def test_findings_that_do_not_verify_are_no_coverage(incident: Open, people: People) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice), conclusion=Conclusion.NO_FAULT, unverified=2))
    await running.approve(alice)
    coverage = (await running.report()).coverage
    assert (coverage.planned, coverage.completed, coverage.failed) == (20, 18, 2)


async def test_an_action_that_changed_nothing_took_no_time_to_its_effect(incident: Open, people: People) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice), outcome=Outcome.REFUSED))
    await running.approve(alice)
    await running.approve(alice, 2)
    report = await running.report()
    assert [action.outcome for action in report.actions] == [Outcome.REFUSED] * 2
    assert report.timings.approval_to_effect_s is None
