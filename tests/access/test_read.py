"""Contract: a grant opens exactly the approved references of this worker's read set, all of which resolve; a secret is
revealed only while the ledger says that the grant is open; the ledger has one release per grant, reference and process.
"""

import asyncio
import subprocess
import sys
from datetime import timedelta

import pytest
from aiohttp import web

from oncall.access.ledger import EntryKind
from oncall.access.read import ReadBroker
from oncall.access.references import Reference
from oncall.model.access import Grant
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.trust.requests import request_digest, request_text
from tests.access.approving import (
    NOW,
    READ_KEY,
    READ_PASSWORD,
    READ_SET,
    READ_USER,
    SECRET,
    WRITE_KEY,
    World,
    decide,
)

HOLDER = "spiffe://oncall/us-east-1/incident/inc-1/database/user/attempt/1"


async def opened(world: World, broker: ReadBroker) -> Grant:
    request = world.read_request()
    return await broker.open_grant(request_text(request), (decide(request),))


async def refused(broker: ReadBroker, digest: str, reference: str = READ_PASSWORD) -> ErrorCode:
    with pytest.raises(Terminal) as caught:
        await broker.reveal(digest, reference, HOLDER)
    assert SECRET not in repr(caught.value)
    return caught.value.code


async def test_a_grant_says_what_was_opened(world: World) -> None:
    request = world.read_request()
    grant = await opened(world, world.reader())
    assert grant.request_digest == request_digest(request)
    assert grant.references == request.references
    assert (grant.not_before, grant.expires_at) == (NOW, NOW + timedelta(hours=1))
    assert "inc-1" in grant.holder


async def test_opening_again_gives_the_same_grant_and_one_row(world: World) -> None:
    first = await opened(world, world.reader())
    again = [await opened(world, world.reader()) for _ in range(2)]
    assert again == [first, first]
    together = world.reader()
    assert await asyncio.gather(*(opened(world, together) for _ in range(5))) == [first] * 5
    assert world.kinds() == ["grant"]


async def test_fifty_agents_cost_one_lookup_and_one_release_each_reference(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    assert broker.take_secret_requests() == 5, "2 for each of 2 items and 1 for their vault"
    values = await asyncio.gather(
        *(broker.reveal(grant.request_digest, (READ_USER, READ_PASSWORD)[n % 2], HOLDER) for n in range(50))
    )
    assert {value.get_secret_value() for value in values} == {"ro", SECRET + "-read"}
    assert broker.take_secret_requests() == 0
    assert sorted(world.kinds()) == ["grant", "release", "release"]
    release = world.ledger.entries(kinds=(EntryKind.RELEASE,))[0]
    assert release.body["holder"] == HOLDER
    assert release.request_digest == grant.request_digest


async def test_another_worker_with_the_same_ledger_serves_the_grant(world: World) -> None:
    grant = await opened(world, world.reader())
    other = world.reader()
    assert (await other.reveal(grant.request_digest, READ_KEY, HOLDER)).get_secret_value() == SECRET + "-k8s"


async def test_references_outside_the_read_set_open_nothing(world: World) -> None:
    for outside in (WRITE_KEY, "op://Infrastructure/db/us-east-1/x/username", READ_KEY + "x", "op://nonsense"):
        request = world.read_request(references=(READ_USER, outside))
        with pytest.raises(Terminal) as caught:
            await world.reader().open_grant(request_text(request), (decide(request),))
        assert caught.value.code is ErrorCode.GRANT_SCOPE
        assert outside in caught.value.message
    assert world.server.paths == []
    assert set(world.kinds()) == {"refusal"}


async def test_a_partial_set_is_refused_naming_all_that_is_missing(world: World) -> None:
    missing = ("op://Infrastructure/db/eu-west-1/username", "op://Infrastructure/db/us-west-2/password")
    request = world.read_request(references=(READ_USER, *missing))
    with pytest.raises(Terminal) as caught:
        await world.reader().open_grant(request_text(request), (decide(request),))
    assert caught.value.code is ErrorCode.FIELD_MISSING
    assert all(reference in caught.value.message for reference in missing)
    assert "2 of 3" in caught.value.message
    assert world.kinds() == ["refusal"]


async def test_a_vault_that_is_down_is_worth_another_try_and_no_refusal(world: World) -> None:
    async def broken() -> web.StreamResponse:
        return web.Response(status=503)

    world.server.misbehave = broken
    with pytest.raises(Retryable) as caught:
        await opened(world, world.reader())
    assert caught.value.code is ErrorCode.VAULT_UNREACHABLE
    assert world.kinds() == []
    world.server.misbehave = None
    await opened(world, world.reader())


async def test_unknown_grants_and_other_references_are_refused(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    assert await refused(broker, "sha256:" + "0" * 64) is ErrorCode.GRANT_UNKNOWN
    assert await refused(broker, grant.grant_id) is ErrorCode.GRANT_UNKNOWN
    assert await refused(broker, grant.request_digest, WRITE_KEY) is ErrorCode.GRANT_SCOPE
    assert await refused(broker, grant.request_digest, READ_SET[0]) is ErrorCode.GRANT_SCOPE
    assert len(world.refusals()) == 4


async def test_an_expired_grant_reveals_nothing_not_even_what_is_cached(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    await broker.reveal(grant.request_digest, READ_PASSWORD, HOLDER)
    world.clock.now = grant.expires_at
    for _ in range(3):
        assert await refused(broker, grant.request_digest) is ErrorCode.GRANT_EXPIRED
    assert world.refusals() == [str(ErrorCode.GRANT_EXPIRED)], "the same refusal is recorded once per process"
    assert ("item", "Infrastructure", "db") not in world.vault._flights, "an ended grant's secrets leave memory"
    with pytest.raises(Terminal) as caught:
        await opened(world, broker)
    assert caught.value.code is ErrorCode.GRANT_EXPIRED


async def test_a_halt_of_one_incident_stops_it_under_a_grant_that_others_go_on_using(world: World) -> None:
    broker = world.reader()
    digest = (await opened(world, broker)).request_digest
    for incident in ("incident-a", "incident-b"):
        await broker.reveal(digest, READ_PASSWORD, HOLDER, incident)
    world.ledger.append(EntryKind.HALT, "", {"incident_id": "incident-a"})
    with pytest.raises(Terminal) as caught:
        await broker.reveal(digest, READ_PASSWORD, HOLDER, "incident-a")
    assert caught.value.code is ErrorCode.HALTED
    await broker.reveal(digest, READ_PASSWORD, HOLDER, "incident-b")


async def test_a_revoked_grant_reveals_nothing_from_the_next_call_on(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    await broker.reveal(grant.request_digest, READ_PASSWORD, HOLDER)
    world.ledger.append(EntryKind.REVOKE, grant.request_digest, {"person": "alice"})
    assert await refused(broker, grant.request_digest) is ErrorCode.GRANT_REVOKED
    with pytest.raises(Terminal):
        await opened(world, broker)


async def test_a_grant_revoked_during_the_lookup_reveals_nothing(world: World) -> None:
    grant = await opened(world, world.reader())
    world.vault.forget(Reference.parse(READ_PASSWORD))
    world.server.delay_s = 0.1
    revealing = asyncio.create_task(world.reader().reveal(grant.request_digest, READ_PASSWORD, HOLDER))
    await asyncio.sleep(0.05)
    world.ledger.append(EntryKind.REVOKE, grant.request_digest, {"person": "alice"})
    with pytest.raises(Terminal) as caught:
        await revealing
    assert caught.value.code is ErrorCode.GRANT_REVOKED


async def test_a_halt_stops_reveals_and_a_resume_lets_them_go_on(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    world.ledger.append(EntryKind.HALT, "", {})
    assert await refused(broker, grant.request_digest) is ErrorCode.HALTED
    world.ledger.append(EntryKind.RESUME, "", {})
    await broker.reveal(grant.request_digest, READ_PASSWORD, HOLDER)


async def test_whether_a_grant_is_open_is_asked_of_the_ledger_every_time_without_the_vault(world: World) -> None:
    async def closed(digest: str) -> ErrorCode:
        with pytest.raises(Terminal) as caught:
            await broker.check_open(digest, "observe for shift-1")
        return caught.value.code

    broker = world.reader()
    grant = await opened(world, world.reader())
    asked = len(world.server.paths)
    await broker.check_open(grant.request_digest, "observe for shift-1")
    assert await closed("sha256:" + "0" * 64) is ErrorCode.GRANT_UNKNOWN
    world.ledger.append(EntryKind.HALT, "", {})
    assert await closed(grant.request_digest) is ErrorCode.HALTED
    world.ledger.append(EntryKind.RESUME, "", {})
    await broker.check_open(grant.request_digest, "observe for shift-1")
    world.ledger.append(EntryKind.REVOKE, grant.request_digest, {"person": "alice"})
    assert await closed(grant.request_digest) is ErrorCode.GRANT_REVOKED
    assert await closed(grant.request_digest) is ErrorCode.GRANT_REVOKED
    refusals = world.ledger.entries(kinds=(EntryKind.REFUSAL,))
    assert [refusal.body["code"] for refusal in refusals] == ["grant_unknown", "halted", "grant_revoked"]
    assert {refusal.body["what"] for refusal in refusals} == {"observe for shift-1"}
    assert len(world.server.paths) == asked


async def test_an_ended_grant_is_not_open(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    world.clock.now = grant.expires_at
    with pytest.raises(Terminal) as caught:
        await broker.check_open(grant.request_digest, "observe for shift-1")
    assert caught.value.code is ErrorCode.GRANT_EXPIRED
    assert world.refusals() == [str(ErrorCode.GRANT_EXPIRED)]


async def test_a_write_approval_is_no_read_grant(world: World) -> None:
    request = world.write_request()
    await world.writer().claim(request_text(request), (decide(request),))
    assert await refused(world.reader(), request_digest(request), WRITE_KEY) is ErrorCode.GRANT_UNKNOWN


async def test_no_secret_is_printed_or_recorded(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    secret = await broker.reveal(grant.request_digest, READ_PASSWORD, HOLDER)
    await refused(broker, grant.request_digest, WRITE_KEY)
    printed = repr((broker, vars(broker), grant, secret, world.ledger.entries())) + str(secret)
    assert SECRET not in printed
    stored = b"".join(path.read_bytes() for path in world.ledger._path.parent.glob("ledger.db*"))
    assert SECRET.encode() not in stored
    assert READ_PASSWORD.encode() in stored


def test_the_read_side_loads_nothing_of_the_write_side() -> None:
    program = "import sys, oncall.access.read; print([m for m in sys.modules if m.endswith('access.write')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_what_is_remembered_of_a_grant_does_not_grow_with_the_names_it_is_asked_for(world: World) -> None:
    broker = world.reader()
    grant = await opened(world, broker)
    for number in range(3000):
        await broker.check_open(grant.request_digest, "measure", f"incident-{number}")
    assert len(broker._head_checked) <= 1024
