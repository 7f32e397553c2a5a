"""Contract: a request opens something only when a person, whom this worker's own list allows, signed a yes over exactly
its bytes in time, under this worker's own policy and ledger. Every refusal has its code and is in the ledger, for reads
and writes alike.
"""

from datetime import timedelta
from typing import Any

import pytest

from oncall.access.broker import Refusals
from oncall.access.ledger import EntryKind
from oncall.access.read import ReadBroker
from oncall.access.write import Claim
from oncall.model.access import AccessRequest, Decision, Intent
from oncall.model.action import KillQueries, target_of
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.policy import Policy, Rule, Verdict
from oncall.trust.requests import policy_digest, request_digest, request_text
from tests.access.approving import INTENT, NOW, POLICY, READ_KEY, World, alice, decide
from tests.trust.ssh_keys import approvers, ssh_key


@pytest.fixture(params=["read", "write"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(world: World, kind: str, **changes: Any) -> AccessRequest:
    return world.read_request(**changes) if kind == "read" else world.write_request(**changes)


async def attempt(world: World, kind: str, text: str, *decisions: Decision, **broker: Any) -> Any:
    if kind == "read":
        return await world.reader(**broker).open_grant(text, decisions)
    return await world.writer(**broker).claim(text, decisions)


async def refused(
    code: ErrorCode, world: World, kind: str, request: AccessRequest, *decisions: Decision, **broker: Any
) -> str:
    with pytest.raises(Terminal) as caught:
        await attempt(world, kind, request_text(request), *decisions, **broker)
    assert caught.value.code is code, caught.value.message
    assert world.kinds() == ["refusal"]
    entry = world.ledger.entries()[0]
    assert (entry.request_digest, entry.body["code"]) == (request_digest(request), str(code))
    assert world.server.paths == [], "nothing may be looked up for a refused request"
    return caught.value.message


async def test_one_signed_yes_opens(world: World, kind: str) -> None:
    request = ask(world, kind)
    await attempt(world, kind, request_text(request), decide(request))
    assert world.refusals() == []
    opened = world.ledger.find(EntryKind.GRANT if kind == "read" else EntryKind.CLAIM, request_digest(request))
    assert opened is not None
    assert (opened.body["approvers"], opened.body["keys"]) == (["alice"], [alice().fingerprint])


async def test_no_decision_opens_nothing(world: World, kind: str) -> None:
    await refused(ErrorCode.SIGNATURE_REFUSED, world, kind, ask(world, kind))


async def test_a_no_wins_over_a_yes(world: World, kind: str) -> None:
    request = ask(world, kind)
    message = await refused(
        ErrorCode.POLICY_FORBIDS, world, kind, request, decide(request), decide(request, approved=False)
    )
    assert "alice said no" in message


async def test_a_yes_turned_from_a_no_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind)
    turned = decide(request, approved=False).model_copy(update={"approved": True})
    await refused(ErrorCode.SIGNATURE_REFUSED, world, kind, request, turned)


async def test_a_yes_to_another_request_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind)
    other = decide(ask(world, kind, nonce="2"))
    await refused(ErrorCode.REQUEST_MISMATCH, world, kind, request, other)


async def test_a_yes_moved_to_another_request_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind)
    moved = decide(ask(world, kind, nonce="2")).model_copy(update={"request_digest": request_digest(request)})
    await refused(ErrorCode.SIGNATURE_REFUSED, world, kind, request, moved)


async def test_a_strangers_yes_is_refused_even_beside_a_good_one(world: World, kind: str) -> None:
    request = ask(world, kind)
    stranger = decide(request, ssh_key("mallory"))
    await refused(ErrorCode.NOT_AN_APPROVER, world, kind, request, decide(request), stranger)


async def test_the_brokers_own_list_counts(world: World, kind: str) -> None:
    request = ask(world, kind)
    bob = approvers(("bob", ssh_key("bob")))
    await refused(ErrorCode.NOT_AN_APPROVER, world, kind, request, decide(request), approvers=bob)


async def test_a_signature_for_another_purpose_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind)
    await refused(ErrorCode.SIGNATURE_REFUSED, world, kind, request, decide(request, namespace="oncall-trigger"))


@pytest.mark.parametrize("minutes", [-1, 31])
async def test_a_decision_outside_its_time_is_refused(world: World, kind: str, minutes: int) -> None:
    request = ask(world, kind)
    world.clock.now = NOW + timedelta(minutes=40)
    late = decide(request, decided_at=NOW + timedelta(minutes=minutes))
    await refused(ErrorCode.REQUEST_EXPIRED, world, kind, request, late)


async def test_a_decision_from_the_future_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind)
    await refused(
        ErrorCode.REQUEST_EXPIRED, world, kind, request, decide(request, decided_at=NOW + timedelta(minutes=20))
    )


async def test_a_decision_without_a_time_zone_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind)
    await refused(
        ErrorCode.REQUEST_MISMATCH, world, kind, request, decide(request, decided_at=NOW.replace(tzinfo=None))
    )


@pytest.mark.parametrize("minutes", [-2, 60])
async def test_a_request_outside_its_time_is_refused(world: World, kind: str, minutes: int) -> None:
    request = ask(world, kind)
    world.clock.now = NOW + timedelta(minutes=minutes)
    await refused(ErrorCode.REQUEST_EXPIRED, world, kind, request, decide(request))


async def test_times_out_of_order_are_refused(world: World, kind: str) -> None:
    request = ask(world, kind, answer_by=NOW + timedelta(minutes=61))
    await refused(ErrorCode.REQUEST_MISMATCH, world, kind, request, decide(request))


async def test_a_grant_longer_than_the_policy_allows_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind, grant_expires_at=NOW + timedelta(seconds=3601))
    await refused(ErrorCode.POLICY_FORBIDS, world, kind, request, decide(request))


async def test_another_ledgers_request_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind, ledger_id="ledger-other")
    await refused(ErrorCode.LEDGER_FOREIGN, world, kind, request, decide(request))


async def test_another_policys_request_is_refused(world: World, kind: str) -> None:
    request = ask(world, kind, policy_digest=policy_digest(Policy(version=9)))
    await refused(ErrorCode.POLICY_FORBIDS, world, kind, request, decide(request))


@pytest.mark.parametrize("verdict", [Verdict.AUTO, Verdict.TWO_PERSON, Verdict.FORBIDDEN])
async def test_only_the_verdict_approve_opens(world: World, kind: str, verdict: Verdict) -> None:
    policy = POLICY.model_copy(update={"read": verdict, "actions": {"disable_flag": Rule(verdict=verdict)}})
    request = ask(world, kind, policy_digest=policy_digest(policy))
    message = await refused(ErrorCode.POLICY_FORBIDS, world, kind, request, decide(request), policy=policy)
    assert str(verdict) in message


async def test_the_other_kind_of_request_is_refused(world: World, kind: str) -> None:
    request = ask(world, "write" if kind == "read" else "read")
    await refused(ErrorCode.REQUEST_MISMATCH, world, kind, request, decide(request))


async def test_the_other_kind_is_refused_even_in_the_shape_of_this_one(world: World, kind: str) -> None:
    request = ask(world, "write" if kind == "read" else "read", intent=None if kind == "read" else INTENT)
    await refused(ErrorCode.REQUEST_MISMATCH, world, kind, request, decide(request))


async def test_a_kind_and_an_intent_belong_together(world: World, kind: str) -> None:
    request = ask(world, kind, intent=INTENT if kind == "read" else None)
    await refused(ErrorCode.REQUEST_MISMATCH, world, kind, request, decide(request))


@pytest.mark.parametrize("count", [0, 2])
async def test_a_request_lists_each_reference_once(world: World, kind: str, count: int) -> None:
    request = ask(world, kind)
    request = request.model_copy(update={"references": request.references[:1] * count})
    await refused(ErrorCode.REQUEST_MISMATCH, world, kind, request, decide(request))


async def test_a_halt_stops_everything_until_it_is_lifted(world: World, kind: str) -> None:
    request = ask(world, kind)
    for scope, stops in (({}, True), ({"incident_id": "inc-1"}, True), ({"incident_id": "inc-2"}, False)):
        world.ledger.append(EntryKind.HALT, "", scope)
        if stops:
            with pytest.raises(Terminal) as caught:
                await attempt(world, kind, request_text(request), decide(request))
            assert caught.value.code is ErrorCode.HALTED
        else:
            await attempt(world, kind, request_text(request), decide(request))
        world.ledger.append(EntryKind.RESUME, "", scope)


@pytest.mark.parametrize(
    "spoil", [lambda t: t + " ", lambda _: "{}", lambda _: "", lambda _: "\udcff", lambda _: "[" * 9999]
)
async def test_text_that_is_no_request_is_refused_and_recorded(world: World, kind: str, spoil: Any) -> None:
    request = ask(world, kind)
    with pytest.raises(Terminal) as caught:
        await attempt(world, kind, spoil(request_text(request)), decide(request))
    assert caught.value.code is ErrorCode.REQUEST_MISMATCH
    assert world.refusals() == [str(ErrorCode.REQUEST_MISMATCH)]
    assert world.ledger.verify() == 1


async def test_a_forbidden_action_is_refused(world: World) -> None:
    kill = KillQueries(region="r", database="d", role="r", query_id="1", min_age_s=1, max_count=1)
    request = world.write_request(intent=Intent(parameters=kill, target=target_of(kill)))
    message = await refused(ErrorCode.POLICY_FORBIDS, world, "write", request, decide(request))
    assert "kill_queries" in message


async def test_a_flood_of_bad_requests_is_recorded_up_to_a_bound(world: World, kind: str) -> None:
    broker = world.reader() if kind == "read" else world.writer()
    door = broker.open_grant if isinstance(broker, ReadBroker) else broker.claim
    request = ask(world, kind)

    async def knock(text: str) -> None:
        with pytest.raises(Terminal):
            await door(text, ())

    for _ in range(3):
        await knock(request_text(request))
    assert world.refusals() == [str(ErrorCode.SIGNATURE_REFUSED)], "the same refusal is recorded once"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oncall.access.broker.MAX_REFUSALS", 4)
        for n in range(8):
            await knock(f"nonsense {n}")
    rows = world.ledger.entries(kinds=(EntryKind.REFUSAL,))
    assert len(rows) == 4
    assert ["last" in row.body for row in rows] == [False, False, False, True], "the last row says that it is"
    # What is refused under an approved request is still recorded.
    await attempt(world, kind, request_text(request), decide(request))
    digest, outside = request_digest(request), "op://Infrastructure/other/field"
    if isinstance(broker, ReadBroker):
        reveal = broker.reveal(digest, outside, "an agent")
    else:
        reveal = broker.reveal(Claim(request, digest, False, None, None), outside)
    with pytest.raises(Terminal):
        await reveal
    assert world.refusals()[-1] == str(ErrorCode.GRANT_SCOPE)


async def test_a_refusal_that_could_not_be_written_is_written_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals, refusal = Refusals(world.ledger), Terminal(ErrorCode.GRANT_SCOPE, "no")

    def full(*_: object) -> None:
        raise Retryable(ErrorCode.DISK_FULL, "full")

    monkeypatch.setattr(world.ledger, "append", full)
    with pytest.raises(Retryable):
        refusals.of_digest("sha256:1", refusal, "reveal", READ_KEY)
    monkeypatch.undo()
    refusals.of_digest("sha256:1", refusal, "reveal", READ_KEY)
    assert [row.body["what"] for row in world.ledger.entries()] == [f"reveal {READ_KEY}"]
