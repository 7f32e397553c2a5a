"""Contract: whoever can append rows to the ledger, but signs nothing, opens nothing: no grant, no claim, no secret.

The ledger's file is shared with workers that may only read, so a row proves nothing by being there.
"""

from typing import Any

import pytest

from oncall.access.ledger import EntryKind
from oncall.access.write import Claim, WriteBroker, action_digest_of
from oncall.model.access import AccessRequest, Decision, Intent
from oncall.model.action import ActionResult, KillQueries, Outcome, target_of
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.policy import Policy
from oncall.trust.requests import policy_digest, request_digest, request_text
from tests.access.approving import POLICY, READ_KEY, WRITE_KEY, World, decide
from tests.trust.ssh_keys import ssh_key

BEGUN, ENDED = (EntryKind.EFFECT_BEGIN,), (EntryKind.EFFECT_BEGIN, EntryKind.EFFECT_END)


def forge(world: World, request: AccessRequest, *kinds: EntryKind, decisions: tuple[Decision, ...] = ()) -> Claim:
    """Appends rows as a claim and an effect would have, and the claim object that they would give."""
    digest, action = request_digest(request), ""
    if request.intent is not None:
        action = action_digest_of(request)
    result = ActionResult(action_digest=action, request_digest=digest, outcome=Outcome.SUCCEEDED)
    bodies: dict[EntryKind, dict[str, Any]] = {
        EntryKind.CLAIM: {
            "request": request_text(request),
            "decisions": [decision.model_dump(mode="json") for decision in decisions],
            "action_digest": action,
            "approvers": ["alice"],
            "keys": [],
        },
        EntryKind.EFFECT_BEGIN: {"action_digest": action, "detail": {"version": 3}},
        EntryKind.EFFECT_END: {"result": result.model_dump(mode="json")},
    }
    for kind in kinds:
        world.ledger.append(kind, digest, bodies[kind])
    return Claim(request, digest, True, {"version": 3}, None)


async def denied(world: World, broker: WriteBroker, claim: Claim, *decisions: Decision) -> ErrorCode:
    """The code with which `claim` is refused; revealing and beginning under the forged rows must be refused too."""
    with pytest.raises(Terminal) as caught:
        await broker.claim(request_text(claim.request), decisions)
    for attempt in (broker.reveal(claim, WRITE_KEY), _begin(broker, claim)):
        with pytest.raises(Terminal):
            await attempt
    assert world.server.paths == [], "nothing is looked up"
    assert "release" not in world.kinds()
    return caught.value.code


async def _begin(broker: WriteBroker, claim: Claim) -> None:
    broker.begin(claim, {})


@pytest.mark.parametrize("kinds", [(), BEGUN, ENDED])
async def test_forged_rows_and_no_decision_open_nothing(world: World, kinds: tuple[EntryKind, ...]) -> None:
    claim = forge(world, world.write_request(), EntryKind.CLAIM, *kinds)
    assert await denied(world, world.writer(), claim) is ErrorCode.SIGNATURE_REFUSED


@pytest.mark.parametrize("kinds", [(), BEGUN, ENDED])
async def test_forged_rows_and_a_strangers_signature_open_nothing(world: World, kinds: tuple[EntryKind, ...]) -> None:
    request = world.write_request()
    stranger = decide(request, ssh_key("mallory"))
    claim = forge(world, request, EntryKind.CLAIM, *kinds, decisions=(stranger,))
    assert await denied(world, world.writer(), claim, stranger) is ErrorCode.NOT_AN_APPROVER


async def test_a_no_a_turned_yes_and_another_requests_yes_open_nothing(world: World) -> None:
    request = world.write_request()
    no = decide(request, approved=False)
    spoiled = {
        ErrorCode.POLICY_FORBIDS: no,
        ErrorCode.SIGNATURE_REFUSED: no.model_copy(update={"approved": True}),
        ErrorCode.REQUEST_MISMATCH: decide(world.write_request(nonce="2")),
    }
    claim = forge(world, request, EntryKind.CLAIM, *BEGUN, decisions=tuple(spoiled.values()))
    for code, decision in spoiled.items():
        assert await denied(world, world.writer(), claim, decision) is code


async def test_a_signed_request_that_may_not_be_done_here_is_refused_though_it_has_begun(world: World) -> None:
    kill = KillQueries(region="r", database="d", role="r", query_id="1", min_age_s=1, max_count=1)
    asked = {
        ErrorCode.POLICY_FORBIDS: world.write_request(intent=Intent(parameters=kill, target=target_of(kill))),
        ErrorCode.LEDGER_FOREIGN: world.write_request(ledger_id="ledger-other"),
        ErrorCode.REQUEST_MISMATCH: world.read_request(),
    }
    for code, request in asked.items():
        yes = decide(request)
        claim = forge(world, request, EntryKind.CLAIM, *BEGUN, decisions=(yes,))
        assert await denied(world, world.writer(), claim, yes) is code


async def test_a_request_under_a_made_up_policy_reveals_nothing_though_it_has_begun(world: World) -> None:
    other = Policy(version=9, actions=POLICY.actions)
    request = world.write_request(policy_digest=policy_digest(other))
    yes = decide(request)
    forge(world, request, EntryKind.CLAIM, *BEGUN, decisions=(yes,))
    broker = world.writer()
    claim = await broker.claim(request_text(request), (yes,))
    with pytest.raises(Terminal) as caught:
        await broker.reveal(claim, WRITE_KEY)
    assert caught.value.code is ErrorCode.POLICY_FORBIDS
    assert world.server.paths == []


async def test_a_forged_claim_row_cannot_lend_itself_to_a_real_yes(world: World) -> None:
    # Its row is first, so the one claim of this request is spent; that is a denial, as a revocation would be.
    request = world.write_request()
    claim = forge(world, request, EntryKind.CLAIM)
    assert await denied(world, world.writer(), claim, decide(request)) is ErrorCode.SIGNATURE_REFUSED
    assert "effect_begin" not in world.kinds()


@pytest.mark.parametrize("body", [{}, {"decisions": 7}, {"decisions": [{"approved": True}]}])
async def test_a_claim_row_of_another_shape_is_a_broken_ledger(world: World, body: dict[str, Any]) -> None:
    request = world.write_request()
    world.ledger.append(EntryKind.CLAIM, request_digest(request), {"request": request_text(request), **body})
    claim = Claim(request, request_digest(request), False, None, None)
    assert await denied(world, world.writer(), claim, decide(request)) is ErrorCode.LEDGER_BROKEN


async def test_a_beginning_of_another_shape_is_a_broken_ledger(world: World) -> None:
    request = world.write_request()
    yes = decide(request)
    forge(world, request, EntryKind.CLAIM, decisions=(yes,))
    world.ledger.append(EntryKind.EFFECT_BEGIN, request_digest(request), {"detail": "none"})
    with pytest.raises(Terminal) as caught:
        await world.writer().claim(request_text(request), (yes,))
    assert caught.value.code is ErrorCode.LEDGER_BROKEN


async def test_what_really_began_is_not_handed_to_whoever_brings_no_yes(world: World) -> None:
    request, broker = world.write_request(), world.writer()
    broker.begin(await broker.claim(request_text(request), (decide(request),)), {"version": 3})
    for decisions in ((), (decide(request, ssh_key("mallory")),)):
        with pytest.raises(Terminal) as caught:
            await world.writer().claim(request_text(request), decisions)
        assert caught.value.code in (ErrorCode.SIGNATURE_REFUSED, ErrorCode.NOT_AN_APPROVER)


@pytest.mark.parametrize("signed", [False, True])
async def test_a_forged_grant_opens_nothing_to_read(world: World, signed: bool) -> None:
    request = world.read_request()
    decisions = (decide(request, ssh_key("mallory")),) if signed else ()
    code = ErrorCode.NOT_AN_APPROVER if signed else ErrorCode.SIGNATURE_REFUSED
    body = {
        "request": request_text(request),
        "decisions": [decision.model_dump(mode="json") for decision in decisions],
        "approvers": ["alice"],
        "keys": [],
    }
    world.ledger.append(EntryKind.GRANT, request_digest(request), body)
    with pytest.raises(Terminal) as caught:
        await world.reader().open_grant(request_text(request), decisions)
    assert caught.value.code is code
    with pytest.raises(Terminal) as caught:
        await world.reader().reveal(request_digest(request), READ_KEY, "an agent")
    assert caught.value.code is code
    assert world.server.paths == []


async def test_an_open_grant_is_not_handed_to_whoever_brings_no_yes(world: World) -> None:
    request = world.read_request()
    await world.reader().open_grant(request_text(request), (decide(request),))
    with pytest.raises(Terminal) as caught:
        await world.reader().open_grant(request_text(request), ())
    assert caught.value.code is ErrorCode.SIGNATURE_REFUSED


async def test_a_signed_grant_that_was_put_into_the_ledger_reveals_only_this_workers_read_set(world: World) -> None:
    request = world.read_request(references=(WRITE_KEY, READ_KEY))
    body = {"request": request_text(request), "decisions": [decide(request).model_dump(mode="json")]}
    world.ledger.append(EntryKind.GRANT, request_digest(request), body)
    with pytest.raises(Terminal) as caught:
        await world.reader().reveal(request_digest(request), WRITE_KEY, "an agent")
    assert caught.value.code is ErrorCode.GRANT_SCOPE
    assert world.server.paths == []
