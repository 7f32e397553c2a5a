"""Contract: whatever was configured, a grant lasts no longer than the policy lets it, and a READ grant no longer than
twelve hours; people answer before it ends, and at least half of the longest is left once they have."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from oncall.model.access import AccessKind, AccessRequest
from oncall.model.policy import Policy, Verdict
from oncall.rules.approvals import CLOCK_SKEW
from oncall.rules.asking import LONGEST_READ, SHORTEST_ANSWER, Asker, Question, Rulebook, ask, longest_grant
from oncall.trust import requests

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
DAY_S = 24 * 3600

# As far as Opening, ShiftOpening and Policy let them be.
kinds = st.sampled_from(AccessKind)
answers = st.integers(1, 7 * DAY_S)
grants = st.integers(60, 12 * 3600)
policies = st.builds(
    Policy, version=st.just(1), read=st.sampled_from(Verdict), max_grant_s=st.integers(300, 30 * DAY_S)
)
moments = st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=8)).map(lambda later: NOW + later)


def asked(
    kind: AccessKind, policy: Policy, answer_by_s: int, grant_s: int, measured_by: datetime | None = None
) -> AccessRequest:
    asker = Asker(
        tenant="test",
        incident_id="incident-1",
        requester=None,
        severity=None,
        answer_by_s=answer_by_s,
        grant_s=grant_s,
    )
    book = Rulebook(policy=policy, policy_digest=requests.policy_digest(policy), ledger_id="ledger")
    question = Question(kind=kind, references=("op://vault/item/field",), purpose="look")
    return ask(asker, book, question, NOW, "nonce", measured_by)


@given(kinds, policies, answers, grants, moments)
def test_no_grant_is_longer_than_it_may_be(
    kind: AccessKind, policy: Policy, answer_by_s: int, grant_s: int, measured_by: datetime | None
) -> None:
    request = asked(kind, policy, answer_by_s, grant_s, measured_by)
    lasts = request.grant_expires_at - request.not_before
    assert lasts <= timedelta(seconds=policy.max_grant_s)
    if kind is AccessKind.READ:
        assert lasts <= LONGEST_READ == timedelta(hours=12)


@given(kinds, policies, answers, grants, moments)
def test_people_answer_before_the_grant_ends_and_have_time_to(
    kind: AccessKind, policy: Policy, answer_by_s: int, grant_s: int, measured_by: datetime | None
) -> None:
    request = asked(kind, policy, answer_by_s, grant_s, measured_by)
    # An approver's clock may be behind ours.
    assert request.not_before == NOW - CLOCK_SKEW
    assert NOW < request.answer_by <= request.grant_expires_at
    assert request.answer_by <= NOW + timedelta(seconds=answer_by_s)
    if measured_by is not None:
        assert request.answer_by <= max(measured_by, NOW + SHORTEST_ANSWER)


@given(kinds, policies, answers, grants, moments)
def test_what_was_configured_or_half_of_the_longest_is_left_after_the_answer(
    kind: AccessKind, policy: Policy, answer_by_s: int, grant_s: int, measured_by: datetime | None
) -> None:
    request = asked(kind, policy, answer_by_s, grant_s, measured_by)
    left = request.grant_expires_at - request.answer_by
    assert left >= min(timedelta(seconds=grant_s), longest_grant(kind, policy) / 2)


@given(kinds, policies, answers, grants)
def test_what_is_asked_can_be_signed_and_read_again(
    kind: AccessKind, policy: Policy, answer_by_s: int, grant_s: int
) -> None:
    request = asked(kind, policy, answer_by_s, grant_s)
    assert requests.parse_request(requests.request_text(request)) == request
    assert (request.kind, request.references, request.purpose) == (kind, ("op://vault/item/field",), "look")


def test_a_write_may_wait_for_days_where_the_policy_lets_it_and_a_read_may_not() -> None:
    policy = Policy(version=1, max_grant_s=10 * DAY_S)
    write = asked(AccessKind.WRITE, policy, 4 * DAY_S, 3600)
    assert write.answer_by == NOW + timedelta(days=4)
    read = asked(AccessKind.READ, policy, 4 * DAY_S, 3600)
    assert read.answer_by == NOW + timedelta(hours=6) - CLOCK_SKEW
