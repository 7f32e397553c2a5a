"""Contract: each of the campaign's zeros can be something else. What happened here happened on paper only."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from activities.evidence import FINDING_TYPE, Evidence
from oncall.blobs.store import BlobStore
from oncall.model.access import (
    AccessKind,
    AccessRequest,
    DecisionOutcome,
    DecisionRecord,
    GateStatus,
    Intent,
)
from oncall.model.action import DisableFlag, KillQueries, Outcome, Parameters, Risk, target_of
from oncall.model.agent import Agent, Specialist
from oncall.model.alert import Alert, Severity
from oncall.model.coverage import Coverage
from oncall.model.finding import Finding, FindingRef, Health
from oncall.model.incident import Ending
from oncall.model.names import agent_uri, attempt_of_wave, pool_uri, worker_uri
from oncall.model.policy import Verdict as Rule
from oncall.model.report import AccessEntry, ActionEntry, IncidentReport, Timings, Usage
from oncall.model.steps import InvestigateIn
from oncall.model.verification import Verification
from oncall.trust.identity import Identity
from tests.campaign import agents, effects
from tests.campaign.agents import Agents
from tests.campaign.events import Event, Source
from tests.campaign.history import Follower
from tests.campaign.judge import Truth, falsely_resolved, lost_decisions, unknown
from tests.campaign.person import Sent

NOW = datetime(2026, 11, 28, 3, tzinfo=UTC)
FLAG = DisableFlag(region="eu-west-1", flag="reads", expected_version=3)
KILL = KillQueries(region="eu-west-1", database="order", role="app", query_id="7", min_age_s=1, max_count=2)
DIGEST = "sha256:" + "a" * 64
WELL = Truth(fault_active=False, runaways=0)


def request(parameters: Parameters | None) -> AccessRequest:
    return AccessRequest(
        kind=AccessKind.WRITE if parameters else AccessKind.READ,
        tenant="t",
        incident_id="i",
        requester=None,
        severity=Severity.HIGH,
        purpose="p",
        references=("op://v/i/f",),
        intent=Intent(parameters=parameters, target=target_of(parameters)) if parameters else None,
        policy_digest="p",
        ledger_id="l",
        nonce="n",
        not_before=NOW,
        answer_by=NOW,
        grant_expires_at=NOW,
    )


def written(by: str = DIGEST, **changes: Any) -> Event:
    body = {"key": "reads", "region": "eu-west-1", "enabled": False, "version": 4, "updated_by": by, **changes}
    return Event(Source.FLAGS, "write", body)


def ended(pid: int) -> Event:
    return Event(Source.POSTGRES, "terminated", {"region": "eu-west-1", "pid": pid})


def chosen(*pids: int) -> Event:
    victims = [{"pid": pid, "backend_start": "2026-11-28T03:00:00+00:00"} for pid in pids]
    return Event(Source.LEDGER, "effect_begin", {"request_digest": DIGEST, "detail": {"victims": victims}})


@pytest.mark.parametrize(
    ("seen", "doubled", "stray"),
    [
        ([written()], 0, 0),
        ([written(), written(f"{DIGEST}:rollback", enabled=True)], 0, 0),
        ([written("release-bot"), written("release-bot")], 0, 0),
        ([written(), written()], 1, 0),
        ([written(key="other")], 0, 1),
        ([written(region="us-east-1")], 0, 1),
        ([written(enabled=True)], 0, 1),
        ([written("sha256:" + "b" * 64)], 0, 1),
    ],
)
def test_a_flag_is_written_once_for_each_approval(seen: list[Event], doubled: int, stray: int) -> None:
    found = effects.account(seen, {DIGEST: request(FLAG)})
    assert (len(found.doubled), len(found.stray)) == (doubled, stray)


@pytest.mark.parametrize(
    ("seen", "doubled", "stray"),
    [
        ([chosen(1, 2), ended(1), ended(2)], 0, 0),
        ([chosen(1, 2), ended(1), ended(1)], 1, 0),
        ([chosen(1, 2), ended(1), ended(3)], 0, 1),
        ([chosen(1, 2, 3), ended(1), ended(2), ended(3)], 1, 0),
        ([ended(1)], 0, 1),
    ],
)
def test_only_backends_that_were_chosen_end_and_no_more_than_approved(
    seen: list[Event], doubled: int, stray: int
) -> None:
    found = effects.account(seen, {DIGEST: request(KILL)})
    assert (found.taken, len(found.doubled), len(found.stray)) == (1, doubled, stray)


def entry(decision: GateStatus, approvers: tuple[str, ...], *received: DecisionOutcome) -> AccessEntry:
    return AccessEntry(
        request_id="req-" + "a" * 12,
        grant_id=None,
        kind=AccessKind.READ,
        references=(),
        purpose="p",
        request_digest=DIGEST,
        decision=decision,
        approvers=approvers,
        reason="",
        requested_at=NOW,
        answer_by=NOW,
        decided_at=NOW,
        grant_expires_at=NOW,
        received=tuple(
            DecisionRecord(outcome=outcome, person=None, received_at=NOW, detail="why") for outcome in received
        ),
    )


YES = Sent(request(None), DIGEST, approved=True, genuine=True)
NO = Sent(request(None), DIGEST, approved=False, genuine=True)
FORGED = Sent(request(None), DIGEST, approved=True, genuine=False)
APPROVED, DENIED, REFUSED = DecisionOutcome.APPROVED, DecisionOutcome.DENIED, DecisionOutcome.REFUSED


@pytest.mark.parametrize(
    ("access", "sent", "lost"),
    [
        ([entry(GateStatus.APPROVED, ("alice",), APPROVED)], [YES], 0),
        ([entry(GateStatus.DENIED, ("alice",), DENIED)], [NO], 0),
        ([entry(GateStatus.APPROVED, ("alice",), REFUSED, APPROVED)], [FORGED, YES], 0),
        ([entry(GateStatus.APPROVED, ("alice",), APPROVED, DecisionOutcome.DUPLICATE)], [YES], 0),
        ([], [YES], 1),
        ([entry(GateStatus.APPROVED, ("mallory",), APPROVED)], [YES], 1),
        ([entry(GateStatus.DENIED, ("alice",), DENIED)], [YES], 1),
        ([entry(GateStatus.APPROVED, ("alice",), APPROVED)], [YES, YES], 1),
        ([entry(GateStatus.PENDING, ())], [YES], 2),
        ([entry(GateStatus.APPROVED, ("alice",), APPROVED)], [FORGED, YES], 2),
    ],
)
def test_a_decision_that_was_acknowledged_is_in_the_report(
    access: list[AccessEntry], sent: list[Sent], lost: int
) -> None:
    assert len(lost_decisions(access, sent, "alice")) == lost


def report(status: Ending, recovered: bool | None) -> IncidentReport:
    measured = None if recovered is None else Verification(recovered=recovered, improved=True, checks=())
    return IncidentReport(
        incident_id="i",
        workflow_id="i",
        run_id="r",
        status=status,
        severity="high",
        anomaly_type="x",
        requester=None,
        opened_at=NOW,
        closed_at=NOW,
        alert=Alert(labels={}, annotations={}, starts_at=NOW, fingerprint="f"),
        phases=(),
        coverage=Coverage(),
        diagnosis=None,
        observations={},
        access=(),
        actions=(),
        verification=measured,
        usage=Usage(model="analyst"),
        timings=Timings(),
    )


@pytest.mark.parametrize(
    ("said", "truth", "wrong"),
    [
        (report(Ending.RESOLVED, True), WELL, 0),
        (report(Ending.UNRESOLVED, False), Truth(True, 4), 0),
        (report(Ending.RESOLVED, True), Truth(True, 0), 1),
        (report(Ending.RESOLVED, True), Truth(True, 4), 2),
        (report(Ending.RESOLVED, None), WELL, 1),
        (report(Ending.RESOLVED, False), WELL, 1),
    ],
)
def test_resolved_is_held_against_the_estate(said: IncidentReport, truth: Truth, wrong: int) -> None:
    assert len(falsely_resolved(said, truth)) == wrong


@pytest.mark.parametrize(
    ("rows", "unreachable", "shown"),
    [
        ([chosen(1)], "every connection was cut", True),
        ([chosen(1)], None, False),
        ([], "every connection was cut", False),
        (
            [
                chosen(1),
                Event(Source.LEDGER, "effect_end", {"request_digest": DIGEST, "result": {"outcome": "succeeded"}}),
            ],
            "every connection was cut",
            False,
        ),
    ],
)
def test_unknown_is_shown_only_for_what_has_begun_and_cannot_be_read_back(
    rows: list[Event], unreachable: str | None, shown: bool
) -> None:
    action = ActionEntry(
        action_id="a",
        action_digest="d",
        type="kill_queries",
        target=target_of(KILL),
        parameters={},
        risk=Risk.LOW,
        verdict=Rule.APPROVE,
        request_id="req-" + "a" * 12,
        outcome=Outcome.UNKNOWN,
        before={},
        after={},
        verified=False,
        rolled_back=False,
        detail="",
        reason="",
        manual_steps=(),
    )
    assert (unknown(action, rows, unreachable).shown is not None) is shown


AGENT = Agent(specialist=Specialist.CACHE, service="order", region="eu-west-1")


def uri(attempt: int) -> str:
    return agent_uri("t", AGENT.region, "i", AGENT.specialist, AGENT.service, attempt)


def scheduled(event_id: int, wave: int = 1) -> HistoryEvent:
    task = InvestigateIn(
        incident_id="i", tenant="t", agent=AGENT, as_of=NOW, alert_at=NOW, grant_digest=None, wave=wave
    )
    event = HistoryEvent(event_id=event_id, event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
    event.activity_task_scheduled_event_attributes.activity_type.name = "investigate"
    event.activity_task_scheduled_event_attributes.input.payloads.add().data = task.model_dump_json().encode()
    return event


def started(event_id: int, of: int, attempt: int) -> HistoryEvent:
    event = HistoryEvent(event_id=event_id, event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
    event.activity_task_started_event_attributes.scheduled_event_id = of
    event.activity_task_started_event_attributes.attempt = attempt
    return event


def completed(event_id: int, of: int, attempt: int) -> HistoryEvent:
    found = FindingRef(
        agent=uri(attempt),
        specialist=AGENT.specialist,
        service=AGENT.service,
        region=AGENT.region,
        health=Health.HEALTHY,
        score=0,
        digest="d",
        signature="s",
    )
    event = HistoryEvent(event_id=event_id, event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
    event.activity_task_completed_event_attributes.scheduled_event_id = of
    event.activity_task_completed_event_attributes.result.payloads.add().data = found.model_dump_json().encode()
    return event


def test_an_agent_that_was_acknowledged_must_not_leave_a_later_finding(tmp_path: Path) -> None:
    history = [scheduled(1), started(2, 1, attempt=2), completed(3, 1, attempt=2)]
    pool = Identity.pool(pool_uri("t", "investigate"))
    worker = pool.issue(worker_uri("t", "investigate-1"), NOW, NOW + timedelta(days=1))
    store = Evidence(BlobStore(tmp_path), frozenset())

    def leave(attempt: int) -> dict[str, set[int]]:
        signer = worker.issue(uri(attempt), NOW, NOW + timedelta(hours=1))
        finding = Finding(
            agent=uri(attempt),
            specialist=AGENT.specialist,
            service=AGENT.service,
            region=AGENT.region,
            health=Health.HEALTHY,
            score=0,
            summary="",
        )
        store.store(signer, FINDING_TYPE, finding)
        return agents.attempts_stored(tmp_path, "i", 0)

    leave(1)
    assert agents.account(history, leave(2)) == Agents(planned=1, acknowledged=1, again=1)
    (wasted,) = agents.account(history, leave(3)).wasted
    assert "acknowledged at attempt 2 and has a finding of attempt 3" in wasted
    assert agents.attempts_stored(tmp_path, "another", 0) == {}


def test_an_agent_that_was_acknowledged_must_not_be_ordered_again() -> None:
    history = [scheduled(1), started(2, 1, attempt=1), completed(3, 1, attempt=1), scheduled(4)]
    assert len(agents.account(history, {}).wasted) == 1
    again = attempt_of_wave(2, 1)
    wider = [*history[:3], scheduled(5, wave=2), started(6, 5, attempt=1), completed(7, 5, again)]
    assert agents.account(wider, {}) == Agents(planned=2, acknowledged=2)
    assert agents.account(history[:3], {}).wasted == ()


def deaf() -> Follower:
    """One that asks no server."""
    return Follower(None, lambda _: None)  # type: ignore[arg-type]  # it is told of the events here


def test_a_history_that_the_server_tells_otherwise_after_a_restart_is_noticed() -> None:
    follower = deaf()
    for event in (scheduled(1), started(2, 1, attempt=1), scheduled(1)):
        follower.take(event)
    assert follower.rewritten == []
    follower.take(started(2, 1, attempt=2))
    assert follower.rewritten == [2]


def test_a_workflow_task_that_is_tried_once_more_is_shown_but_not_written() -> None:
    follower = deaf()
    for kind in ("WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED"):
        shown = HistoryEvent(event_id=2, event_type=EventType.Value(f"EVENT_TYPE_{kind}"))
        follower.take(shown)
    follower.take(started(2, 1, attempt=1))
    assert follower.rewritten == []
    assert list(follower.seen) == [2]
