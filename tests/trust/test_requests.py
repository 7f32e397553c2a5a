"""Contract: one request has one text, one digest and one reading; whatever is not that text is refused. A digest
changes with every field, an action's digest only with what the effect is.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.model.access import AccessKind, AccessRequest, Decision, Intent
from oncall.model.action import DisableFlag, KillQueries, Target, target_of
from oncall.model.alert import Severity
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.policy import Policy, Rule, Verdict
from oncall.trust.canonical import canonical, digest
from oncall.trust.requests import (
    action_digest,
    decision_bytes,
    grant_id,
    parse_request,
    policy_digest,
    request_digest,
    request_id,
    request_text,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KILL = KillQueries(region="us-east-1", database="app", role="app", query_id="-12", min_age_s=5, max_count=9)
TARGET = target_of(KILL)


def a_request(**changes: Any) -> AccessRequest:
    fields: dict[str, Any] = {
        "kind": AccessKind.WRITE,
        "tenant": "oncall",
        "incident_id": "inc-1",
        "requester": None,
        "severity": Severity.CRITICAL,
        "purpose": "end the runaway queries – now",
        "references": ("op://Infrastructure-Write/prod-db-rwaccess/us-east-1/password",),
        "intent": Intent(parameters=KILL, target=TARGET),
        "evidence_digest": "sha256:" + "0" * 64,
        "policy_digest": "sha256:" + "1" * 64,
        "ledger_id": "ledger-1",
        "nonce": "n",
        "not_before": NOW,
        "answer_by": NOW + timedelta(minutes=30),
        "grant_expires_at": NOW + timedelta(hours=1),
    }
    return AccessRequest(**{**fields, **changes})


def test_a_text_reads_back_as_its_request() -> None:
    request = a_request()
    assert parse_request(request_text(request)) == request
    assert request_id(request_digest(request)) == "req-" + request_digest(request)[7:19]
    assert grant_id(request_digest(request)) == "grant-" + request_digest(request)[7:19]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + " ",
        lambda text: " " + text,
        lambda text: json.dumps(json.loads(text)),
        lambda text: text.replace('"nonce":"n"', '"nonce":"n","nonce":"n"'),
        lambda text: text.replace('"nonce":"n"', '"nonce":"\\u006e"'),
        lambda text: text.replace('"version":1', '"version":1.0'),
        lambda text: text.replace("12:00:00Z", "12:00:00+00:00"),
        lambda text: text.replace("12:00:00Z", "12:00:00"),
        lambda text: text.replace('"nonce":"n"', '"nonce":"n","extra":1'),
        lambda text: text.replace('"kind":"statement"', '"kind":"flag"'),
        lambda text: text[:-1],
        lambda _: "",
        lambda _: "[" * 50_000,
        lambda _: "null",
        lambda text: text.replace('"n"', '"' + "x" * 70_000 + '"'),
        lambda text: text.replace('"n"', '"\\ud800"'),
    ],
)
def test_anything_but_the_canonical_text_is_refused(spoil: Any) -> None:
    text = request_text(a_request())
    spoiled = spoil(text)
    assert spoiled != text
    with pytest.raises(Terminal) as caught:
        parse_request(spoiled)
    assert caught.value.code is ErrorCode.REQUEST_MISMATCH


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_refused_with_the_code(text: str) -> None:
    with pytest.raises(Terminal) as caught:
        parse_request(text)
    assert caught.value.code is ErrorCode.REQUEST_MISMATCH


def test_every_field_changes_the_digest() -> None:
    other: dict[str, Any] = {
        "kind": AccessKind.READ,
        "tenant": "t",
        "incident_id": "inc-2",
        "requester": "bob",
        "severity": Severity.LOW,
        "purpose": "p",
        "references": (),
        "intent": None,
        "evidence_digest": None,
        "policy_digest": "p",
        "ledger_id": "l",
        "nonce": "m",
        "not_before": NOW + timedelta(microseconds=1),
        "answer_by": NOW,
        "grant_expires_at": NOW,
    }
    assert set(other) | {"schema_id"} == set(AccessRequest.model_fields)
    digests = {request_digest(a_request(**{name: value})) for name, value in other.items()}
    assert len(digests | {request_digest(a_request())}) == len(other) + 1


def test_an_action_digest_names_the_effect_only() -> None:
    same = action_digest(KILL, TARGET)
    assert same == action_digest(KILL.model_copy(), Target(kind=TARGET.kind, identity=TARGET.identity))
    flag = DisableFlag(region="us-east-1", flag="f", expected_version=1)
    changed = {
        action_digest(KILL.model_copy(update={"max_count": 8}), TARGET),
        action_digest(KILL, TARGET.model_copy(update={"identity": "x"})),
        action_digest(flag, TARGET),
    }
    assert len(changed | {same}) == 4


def test_a_decision_is_signed_without_its_signature_and_with_all_else() -> None:
    decision = Decision(request_digest="sha256:0", approved=True, decided_at=NOW)
    assert decision_bytes(decision) == decision_bytes(decision.model_copy(update={"signature": "s"}))
    assert decision_bytes(decision) != decision_bytes(decision.model_copy(update={"approved": False}))
    assert b'"signature"' not in decision_bytes(decision)


def test_policies_and_domains_do_not_share_digests() -> None:
    policy = Policy(version=1)
    allowing = Policy(version=1, actions={"kill_queries": Rule(verdict=Verdict.APPROVE)})
    assert policy_digest(policy) != policy_digest(allowing)
    assert digest("a", policy) != digest("b", policy)


def test_canonical_json_is_rfc_8785() -> None:
    # The RFC's own example of sorting and numbers, section 3.2.3 and appendix B.
    value = {"€": "Euro Sign", "\r": "Carriage Return", "1": "One", "numbers": [333333333.33333329, 1e30, 4.50, 2e-3]}
    assert canonical(value) == (
        '{"\\r":"Carriage Return","1":"One","numbers":[333333333.3333333,1e+30,4.5,0.002],"€":"Euro Sign"}'.encode()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {"\ud800": 1}, {1: 2}, b"x"])
def test_what_json_cannot_say_exactly_is_refused(value: Any) -> None:
    with pytest.raises(Terminal) as caught:
        canonical(value)
    assert caught.value.code is ErrorCode.INTERNAL


def test_too_deep_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Terminal):
        canonical(deep)
