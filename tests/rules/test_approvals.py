"""A gate leaves `pending` once, and only for a signature over its own digest inside its deadline."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.model.access import AccessKind, AccessRequest, DecisionOutcome, GateStatus
from oncall.model.alert import Severity
from oncall.model.incident import Gate
from oncall.model.policy import Verdict
from oncall.rules import approvals
from tests.people import Person
from tests.people import approvers as approvers_of

OPENED = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
DEADLINE = OPENED + timedelta(minutes=30)


def request(nonce: str = "n") -> AccessRequest:
    return AccessRequest(
        kind=AccessKind.READ,
        tenant="test",
        incident_id="incident-1",
        requester=None,
        severity=Severity.HIGH,
        purpose="look",
        references=("op://v/i/f",),
        policy_digest="sha256:p",
        ledger_id="ledger",
        nonce=nonce,
        not_before=OPENED - approvals.CLOCK_SKEW,
        answer_by=DEADLINE,
        grant_expires_at=DEADLINE + timedelta(hours=1),
    )


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return Person.create(tmp_path_factory.mktemp("alice"), "alice")


@pytest.fixture(scope="module")
def mallory(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return Person.create(tmp_path_factory.mktemp("mallory"), "mallory")


@pytest.fixture
def gate() -> Gate:
    return approvals.open_gate(request(), Verdict.APPROVE, OPENED)


@pytest.mark.parametrize(("approved", "status"), [(True, GateStatus.APPROVED), (False, GateStatus.DENIED)])
def test_a_signed_decision_moves_the_gate(alice: Person, gate: Gate, approved: bool, status: GateStatus) -> None:
    now = OPENED + timedelta(minutes=1)
    after, outcome = approvals.receive(
        gate, alice.decide(gate.request_digest, approved, at=now), approvers_of(alice), now
    )
    assert (after.status, outcome, after.approvers) == (status, DecisionOutcome(status), ("alice",))


@pytest.mark.parametrize("moment", [DEADLINE - timedelta(microseconds=1), DEADLINE])
def test_the_deadline_itself_is_in_time(alice: Person, gate: Gate, moment: datetime) -> None:
    decision = alice.decide(gate.request_digest, True, at=moment)
    assert approvals.receive(gate, decision, approvers_of(alice), moment)[1] is DecisionOutcome.APPROVED


def test_just_after_the_deadline_is_late_and_expires_the_gate(alice: Person, gate: Gate) -> None:
    moment = DEADLINE + timedelta(microseconds=1)
    decision = alice.decide(gate.request_digest, True, at=DEADLINE)
    after, outcome = approvals.receive(gate, decision, approvers_of(alice), moment)
    assert (after.status, outcome) == (GateStatus.EXPIRED, DecisionOutcome.LATE)
    assert after.decisions == ()


def test_a_backdated_or_postdated_decision_is_refused(alice: Person, gate: Gate) -> None:
    now = OPENED + timedelta(minutes=1)
    for at in (OPENED - timedelta(minutes=2), now + timedelta(minutes=2)):
        after, outcome = approvals.receive(
            gate, alice.decide(gate.request_digest, True, at=at), approvers_of(alice), now
        )
        assert (after.status, outcome) == (GateStatus.PENDING, DecisionOutcome.REFUSED)


def test_a_decision_on_another_request_is_unknown(alice: Person, gate: Gate) -> None:
    other = approvals.open_gate(request("other"), Verdict.APPROVE, OPENED)
    decision = alice.decide(other.request_digest, True, at=OPENED)
    assert approvals.receive(gate, decision, approvers_of(alice), OPENED) == (gate, DecisionOutcome.UNKNOWN_REQUEST)


@pytest.mark.parametrize("verdict", [Verdict.FORBIDDEN, Verdict.AUTO, Verdict.TWO_PERSON])
def test_a_verdict_that_this_gate_cannot_honour_asks_nobody(verdict: Verdict) -> None:
    assert approvals.open_gate(request(), verdict, OPENED).status is GateStatus.DENIED


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["alice", "mallory", "forged"]), st.booleans(), st.integers(0, 60)), max_size=8)
)
def test_whatever_arrives_a_gate_is_answered_at_most_once_and_only_by_an_approver(
    alice: Person, mallory: Person, events: list[tuple[str, bool, int]]
) -> None:
    gate = approvals.open_gate(request(), Verdict.APPROVE, OPENED)
    people = approvers_of(alice)
    first: Gate | None = None
    for who, approved, minute in sorted(events, key=lambda event: event[2]):
        now = OPENED + timedelta(minutes=minute)
        signer = mallory if who == "mallory" else alice
        decision = signer.decide(gate.request_digest, approved, at=now)
        if who == "forged":
            decision = decision.model_copy(update={"approved": not approved})
        gate, outcome = approvals.receive(gate, decision, people, now)
        if outcome in (DecisionOutcome.APPROVED, DecisionOutcome.DENIED):
            assert first is None
            assert who == "alice"
            assert now <= DEADLINE
            first = gate
        if first is not None:
            assert (gate.status, gate.decisions) == (first.status, first.decisions)
    assert len(gate.history) <= approvals.RECORDED_DECISIONS


def test_a_flood_of_refusals_is_counted_but_not_kept(alice: Person, mallory: Person, gate: Gate) -> None:
    decision = mallory.decide(gate.request_digest, True, at=OPENED)
    for _ in range(200):
        gate, _outcome = approvals.receive(gate, decision, approvers_of(alice), OPENED)
    assert (gate.refused, len(gate.history)) == (200, approvals.RECORDED_DECISIONS)


def test_the_folder_of_a_key_is_not_needed_to_verify(tmp_path: Path, gate: Gate) -> None:
    person = Person.create(tmp_path, "bob")
    decision = person.decide(gate.request_digest, True, at=OPENED)
    person.key.unlink()
    assert approvals.receive(gate, decision, approvers_of(person), OPENED)[1] is DecisionOutcome.APPROVED
