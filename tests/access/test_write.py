"""Contract: one signed request is one claim and one effect, whoever retries, restarts or races; the claim is in the
ledger before anything is looked up; only the signed references are revealed, and only while the approval lasts.
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from oncall.access.ledger import EntryKind, Ledger
from oncall.access.write import Claim, WriteBroker, action_digest_of
from oncall.model.action import ActionResult, Outcome
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.policy import Policy
from oncall.trust.requests import request_digest, request_text
from tests.access.approving import INTENT, NOW, POLICY, READ_PASSWORD, SECRET, WRITE_KEY, World, decide
from tests.access.connect_server import TOKEN
from tests.trust.ssh_keys import approvers, ssh_key


async def claimed(world: World, broker: WriteBroker) -> Claim:
    request = world.write_request()
    return await broker.claim(request_text(request), (decide(request),))


def a_result(claim: Claim, outcome: Outcome = Outcome.SUCCEEDED) -> ActionResult:
    return ActionResult(
        action_digest=action_digest_of(claim.request),
        request_digest=claim.digest,
        outcome=outcome,
        before={"version": 3},
        after={"version": 4},
    )


async def refused(broker: WriteBroker, claim: Claim, reference: str = WRITE_KEY) -> ErrorCode:
    with pytest.raises(Terminal) as caught:
        await broker.reveal(claim, reference)
    return caught.value.code


async def test_the_way_of_an_effect_through_the_ledger(world: World) -> None:
    broker = world.writer()
    claim = await claimed(world, broker)
    assert (claim.resumed, claim.begun, claim.ended) == (False, None, None)
    assert claim.request.intent == INTENT
    assert world.kinds() == ["claim"]
    assert world.server.paths == [], "the claim comes before any lookup"
    assert (await broker.reveal(claim, WRITE_KEY)).get_secret_value() == SECRET + "-write"
    broker.begin(claim, {"version": 3})
    assert broker.end(claim, a_result(claim)) == a_result(claim)
    assert world.kinds() == ["claim", "release", "effect_begin", "effect_end"]
    assert world.ledger.verify() == 4


async def test_a_retry_resumes_at_each_point(world: World) -> None:
    first = await claimed(world, world.writer())
    before_begin = await claimed(world, world.writer())
    assert (before_begin.resumed, before_begin.begun, before_begin.ended) == (True, None, None)
    world.writer().begin(first, {"version": 3})
    after_begin = await claimed(world, world.writer())
    assert (after_begin.resumed, after_begin.begun, after_begin.ended) == (True, {"version": 3}, None)
    world.writer().end(first, a_result(first))
    after_end = await claimed(world, world.writer())
    assert (after_end.begun, after_end.ended) == ({"version": 3}, a_result(first))
    assert world.refusals() == []


async def test_of_racing_attempts_one_is_first_and_one_begins(world: World) -> None:
    brokers = [world.writer() for _ in range(6)]
    claims = await asyncio.gather(*(claimed(world, broker) for broker in brokers))
    assert sorted(claim.resumed for claim in claims) == [False] + [True] * 5
    brokers[3].begin(claims[3], {"version": 3})
    for broker, claim in zip(brokers, claims, strict=True):
        with pytest.raises(Retryable) as caught:
            broker.begin(claim, {"version": 3})
        assert caught.value.code is ErrorCode.ALREADY_USED
    assert broker.end(claims[1], a_result(claims[1], Outcome.UNKNOWN)).outcome is Outcome.UNKNOWN
    assert broker.end(claims[0], a_result(claims[0])).outcome is Outcome.UNKNOWN, "the first to end wins"


@pytest.mark.parametrize(
    ("hours", "policy", "code"),
    [
        (2, POLICY, ErrorCode.GRANT_EXPIRED),
        (0, POLICY.model_copy(update={"version": 2}), ErrorCode.POLICY_FORBIDS),
        (2, POLICY.model_copy(update={"version": 2}), ErrorCode.POLICY_FORBIDS),
    ],
)
async def test_a_begun_effect_is_accounted_for_after_its_time_and_under_a_newer_policy(
    world: World, hours: int, policy: Policy, code: ErrorCode
) -> None:
    claim = await claimed(world, world.writer())
    world.writer().begin(claim, {"version": 3})
    world.clock.now += timedelta(hours=hours)
    later = world.writer(policy=policy)
    again = await claimed(world, later)
    assert again.begun == {"version": 3}
    assert await refused(later, again) is code
    assert later.end(again, a_result(again, Outcome.UNKNOWN)).outcome is Outcome.UNKNOWN
    assert (await claimed(world, later)).ended == a_result(again, Outcome.UNKNOWN)
    assert world.server.paths == []


async def test_a_begun_effect_whose_signatures_do_not_hold_any_more_is_not_handed_back(world: World) -> None:
    request = world.write_request()
    assert not await world.writer().may_have_begun(request_digest(request))
    world.writer().begin(await claimed(world, world.writer()), {"version": 3})
    changes: list[tuple[dict[str, Any], ErrorCode]] = [
        ({"policy": Policy(version=2)}, ErrorCode.POLICY_FORBIDS),
        ({"approvers": approvers(("bob", ssh_key("bob")))}, ErrorCode.NOT_AN_APPROVER),
    ]
    for change, code in changes:
        broker = world.writer(**change)
        with pytest.raises(Terminal) as caught:
            await claimed(world, broker)
        assert caught.value.code is code
        assert await broker.may_have_begun(request_digest(request))


async def test_a_claim_that_has_not_begun_is_checked_again(world: World) -> None:
    claim = await claimed(world, world.writer())
    with pytest.raises(Terminal) as caught:
        await claimed(world, world.writer(policy=Policy(version=2)))
    assert caught.value.code is ErrorCode.POLICY_FORBIDS
    world.clock.now = NOW + timedelta(hours=1)
    with pytest.raises(Terminal) as caught:
        await claimed(world, world.writer())
    assert caught.value.code is ErrorCode.REQUEST_EXPIRED
    with pytest.raises(Terminal) as caught:
        world.writer().begin(claim, {})
    assert caught.value.code is ErrorCode.GRANT_EXPIRED
    assert "effect_begin" not in world.kinds()


async def test_only_signed_references_are_revealed(world: World) -> None:
    broker = world.writer()
    claim = await claimed(world, broker)
    assert await refused(broker, claim, READ_PASSWORD) is ErrorCode.GRANT_SCOPE
    widened = claim.request.model_copy(update={"references": (READ_PASSWORD,)})
    forged = Claim(widened, claim.digest, False, None, None)
    assert await refused(broker, forged, READ_PASSWORD) is ErrorCode.GRANT_SCOPE
    assert world.server.paths == []
    assert world.kinds() == ["claim", "refusal"], "the same refusal is recorded once"


async def test_a_claim_that_the_ledger_does_not_know_is_worth_nothing(world: World) -> None:
    request = world.write_request()
    forged = Claim(request, request_digest(request), False, None, None)
    broker = world.writer()
    assert await refused(broker, forged) is ErrorCode.GRANT_UNKNOWN
    with pytest.raises(Terminal):
        broker.begin(forged, {})
    with pytest.raises(Terminal):
        broker.end(forged, a_result(forged))
    assert set(world.kinds()) == {"refusal"}


@pytest.mark.parametrize(
    ("kind", "code"), [(EntryKind.REVOKE, ErrorCode.GRANT_REVOKED), (EntryKind.HALT, ErrorCode.HALTED)]
)
async def test_brakes_stop_a_claim_at_once(world: World, kind: EntryKind, code: ErrorCode) -> None:
    broker = world.writer()
    claim = await claimed(world, broker)
    await broker.reveal(claim, WRITE_KEY)
    world.ledger.append(kind, claim.digest if kind is EntryKind.REVOKE else "", {})
    assert await refused(broker, claim) is code
    with pytest.raises(Terminal) as caught:
        broker.begin(claim, {})
    assert caught.value.code is code


async def test_nothing_is_revealed_after_the_end(world: World) -> None:
    broker = world.writer()
    claim = await claimed(world, broker)
    broker.end(claim, a_result(claim, Outcome.SKIPPED))
    assert await refused(broker, claim) is ErrorCode.ALREADY_USED
    assert world.server.paths == [], "what will not be revealed is not even looked up"
    assert "release" not in world.kinds()


async def test_a_result_of_another_action_is_refused(world: World) -> None:
    broker = world.writer()
    claim = await claimed(world, broker)
    for name in ("request_digest", "action_digest"):
        with pytest.raises(Terminal) as caught:
            broker.end(claim, a_result(claim).model_copy(update={name: "sha256:0"}))
        assert caught.value.code is ErrorCode.REQUEST_MISMATCH
    assert world.kinds() == ["claim"]


async def test_deleting_the_workflow_changes_nothing(world: World) -> None:
    # Another process, another broker, the same bytes again: the ledger remembers.
    claim = await claimed(world, world.writer())
    world.writer().begin(claim, {"version": 3})
    again = Ledger(world.ledger._path)
    broker = WriteBroker(world.vault, again, world.people, POLICY, clock=world.clock)
    request = world.write_request()
    resumed = await broker.claim(request_text(request), (decide(request),))
    assert resumed.begun == {"version": 3}
    again.close()


async def test_no_secret_is_printed_or_recorded(world: World) -> None:
    broker = world.writer()
    claim = await claimed(world, broker)
    secret = await broker.reveal(claim, WRITE_KEY)
    printed = repr((broker, vars(broker), claim, secret, world.ledger.entries())) + str(secret)
    stored = b"".join(path.read_bytes() for path in world.ledger._path.parent.glob("ledger.db*"))
    for canary in (SECRET, TOKEN):
        assert canary not in printed
        assert canary.encode() not in stored
