"""Contract: the flag that was approved is turned off at the version that was approved, once, and nothing else is.

- a flag that has moved on is refused; a lost answer is read back; what nobody can establish is `unknown`;
- verified means that every client which still polls has the new version;
- no flag name can change the path; no message, result or log holds the credential.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest

from oncall.model.action import DisableFlag
from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from oncall.remedies.disable_flag import DisableFlagRemedy
from oncall.remedies.remedy import Applied, Effect, Reading, Session
from oncall.trust.canonical import canonical
from tests.remedies.flag_server import FlagClient, FlagServer, serving
from tests.remedies.vault import Vault

ITEM = "op://Infrastructure-Write/config-service"
DIGEST = "sha256:" + "ab" * 32
REMEDY = DisableFlagRemedy(ITEM, clients_timeout_s=1.0, read_back_timeout_s=0.5)


def asks(server: FlagServer, expected_version: int = 7) -> DisableFlag:
    return DisableFlag(region=server.region, flag=server.key, expected_version=expected_version)


def session(flags: FlagServer, **items: str) -> Session:
    fields = {"server": flags.url, "credential": flags.credential, **items}
    return Session(DIGEST, Vault({f"{ITEM}/{name}": value for name, value in fields.items()}))


@asynccontextmanager
async def prechecked(server: FlagServer) -> AsyncIterator[tuple[DisableFlag, Session, Reading]]:
    async with serving(server):
        s = session(server)
        yield asks(server), s, await REMEDY.precheck(asks(server), s)


async def test_off_once_seen_by_all_clients_with_two_secret_requests() -> None:
    server = FlagServer(clients=[FlagClient("order-1", lag_s=0.5), FlagClient("order-2"), FlagClient("x", polls=False)])
    async with prechecked(server) as (parameters, s, before):
        assert before.values["enabled"] is True
        assert (before.values["version"], before.values["clients"]) == (7, 2)
        assert not before.nothing
        effect = await REMEDY.apply(parameters, s, before)
        assert effect.applied is Applied.YES
        assert (server.enabled, server.version) == (False, 8)
        proof = await REMEDY.verify(parameters, s, before, effect)
        assert proof.verified
        assert proof.values["waited_s"] >= 0.4, "it waited for the slow client"
        assert (proof.values["clients"], proof.values["clients_current"]) == (2, 2)
    [write] = server.writes
    assert write == {"enabled": False, "expected_version": 7, "idempotency_key": DIGEST, "updated_by": DIGEST}
    vault = s._credentials
    assert isinstance(vault, Vault)
    assert sorted(vault.asked) == [f"{ITEM}/credential", f"{ITEM}/server"]


@pytest.mark.parametrize(("enabled", "version"), [(False, 7), (True, 8), (False, 8), (True, 6)])
async def test_a_flag_that_is_not_as_approved_is_refused(enabled: bool, version: int) -> None:
    async with serving(FlagServer(enabled=enabled, version=version)) as server:
        with pytest.raises(Terminal) as caught:
            await REMEDY.precheck(asks(server), session(server))
        assert caught.value.code is ErrorCode.TARGET_CHANGED
        assert not server.writes


async def test_a_change_between_precheck_and_write_is_refused() -> None:
    async with prechecked(FlagServer(misbehaviour=["conflict_before"])) as (parameters, s, before):
        with pytest.raises(Terminal) as caught:
            await REMEDY.apply(parameters, s, before)
        assert caught.value.code is ErrorCode.TARGET_CHANGED


@pytest.mark.parametrize("how", ["drop_after", "500_after", "slow"])
async def test_a_lost_answer_is_read_back_and_not_written_again(how: str) -> None:
    server = FlagServer(misbehaviour=[how])
    async with prechecked(server) as (parameters, s, before):
        effect = await REMEDY.apply(parameters, s, before)
        assert effect.applied is Applied.YES
        assert effect.values["version"] == server.version == 8
        assert len(server.writes) == 1


@pytest.mark.parametrize("how", ["drop_before", "500"])
async def test_a_lost_write_is_written_again(how: str) -> None:
    server = FlagServer(misbehaviour=[how, how])
    async with prechecked(server) as (parameters, s, before):
        effect = await REMEDY.apply(parameters, s, before)
        assert effect.applied is Applied.YES
        assert server.version == 8


async def test_a_write_that_keeps_failing_is_no_only_when_the_service_says_so() -> None:
    async with prechecked(FlagServer(misbehaviour=["500"] * 3)) as (parameters, s, before):
        assert (await REMEDY.apply(parameters, s, before)).applied is Applied.NO
    async with prechecked(FlagServer(misbehaviour=["drop_before", "500", "500"])) as (parameters, s, before):
        assert (await REMEDY.apply(parameters, s, before)).applied is Applied.UNKNOWN


async def test_a_lost_answer_that_cannot_be_read_back_is_unknown() -> None:
    server = FlagServer(misbehaviour=["drop_after"])
    async with prechecked(server) as (parameters, s, before):
        server.get_status = 503
        effect = await REMEDY.apply(parameters, s, before)
    assert effect.applied is Applied.UNKNOWN


async def test_a_lost_answer_and_then_somebody_elses_write_is_unknown() -> None:
    server = FlagServer(misbehaviour=["drop_before"])
    async with prechecked(server) as (parameters, s, before):
        applying = asyncio.create_task(REMEDY.apply(parameters, s, before))
        while server.misbehaviour:
            await asyncio.sleep(0)
        server.set(False, "m.okafor")
        assert (await applying).applied is Applied.UNKNOWN


@pytest.mark.parametrize("remember", [True, False])
async def test_a_second_attempt_sees_its_own_effect(remember: bool) -> None:
    server = FlagServer(remember_keys=remember)
    async with prechecked(server) as (parameters, s, before):
        assert await REMEDY.read_back(parameters, s, before) is None
        await REMEDY.apply(parameters, s, before)
        again = session(server)
        effect = await REMEDY.read_back(parameters, again, before)
        assert effect is not None
        assert effect.values["version"] == 8
        assert (await REMEDY.apply(parameters, again, before)).applied is Applied.YES, "a repeat is harmless"
        assert server.version == 8
        await REMEDY.precheck(parameters, again)
        server.set(False, "m.okafor")
        assert await REMEDY.read_back(parameters, again, before) is None


@pytest.mark.parametrize(
    ("clients", "says"),
    [
        ([FlagClient("order-1"), FlagClient("order-2", lag_s=None)], "1 of 2 clients"),
        ([FlagClient("order-1", polls=False)], "no client has polled"),
        ([], "no client has polled"),
    ],
)
async def test_not_verified_while_clients_have_not_seen_it(clients: list[FlagClient], says: str) -> None:
    async with prechecked(FlagServer(clients=clients)) as (parameters, s, before):
        effect = await REMEDY.apply(parameters, s, before)
        proof = await REMEDY.verify(parameters, s, before, effect)
    assert not proof.verified
    assert not proof.harm
    assert says in proof.detail
    assert proof.values["enabled"] is False


async def test_not_verified_when_somebody_turns_it_on_again() -> None:
    server = FlagServer()
    async with prechecked(server) as (parameters, s, before):
        effect = await REMEDY.apply(parameters, s, before)
        server.set(True, "m.okafor")
        proof = await REMEDY.verify(parameters, s, before, effect)
        assert not proof.verified
        assert not proof.harm
        assert not await REMEDY.rollback(parameters, s, effect), "somebody else's write is not overwritten"
        assert server.updated_by == "m.okafor"


@pytest.mark.parametrize("how", ["", "drop_after", "500_after"])
async def test_clients_that_vanish_are_harm_and_the_flag_comes_back(how: str) -> None:
    server = FlagServer(clients_die_on_change=True)
    async with prechecked(server) as (parameters, s, before):
        effect = await REMEDY.apply(parameters, s, before)
        proof = await REMEDY.verify(parameters, s, before, effect)
        assert proof.harm
        server.misbehaviour = [how]
        assert await REMEDY.rollback(parameters, s, effect)
        assert (server.enabled, server.version) == (True, 9)
        again = await REMEDY.verify(parameters, s, before, effect)
        assert again.harm, "another attempt finds it rolled back"
        assert await REMEDY.rollback(parameters, s, effect)
        assert server.version == 9


HOSTILE = [
    "a/b",
    "../../admin/keys",
    "a?region=eu-west-1&x=",
    "a#b",
    "a%2Fb",
    "ключ 🚩",
    "a b",
    "a;b",
    "\\..\\x",
    "a\r\nX: y",
]


@pytest.mark.parametrize("key", HOSTILE)
async def test_a_hostile_name_stays_one_path_segment(key: str) -> None:
    async with serving(FlagServer(key=key)) as server:
        await REMEDY.precheck(asks(server), session(server))
        [path] = server.raw_paths
        assert path == f"/api/admin/flags/{quote(key, safe='')}?region=us-east-1"


@pytest.mark.parametrize("key", ["", ".", "..", "x" * 70_000])
async def test_a_name_that_would_change_the_path_is_refused_unsent(key: str) -> None:
    async with serving(FlagServer(key=key)) as server:
        with pytest.raises(Terminal) as caught:
            await REMEDY.precheck(asks(server), session(server))
        assert caught.value.code is ErrorCode.NOT_FOUND
        assert not server.raw_paths


async def test_a_hostile_region_stays_one_parameter() -> None:
    async with serving(FlagServer(region="us&x=1#/é")) as server:
        await REMEDY.precheck(asks(server), session(server))


@pytest.mark.parametrize(
    ("items", "code", "kind"),
    [
        ({"credential": "canary-wrong"}, ErrorCode.TARGET_REFUSED, Terminal),
        ({"credential": "canary\r\nX: y"}, ErrorCode.BAD_REFERENCE, Terminal),
        ({"credential": "canary-ключ"}, ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": "http://canary:canary@127.0.0.1:1"}, ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": "file:///canary"}, ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": "canary not a url"}, ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": "http://127.0.0.1:1"}, ErrorCode.TARGET_UNREACHABLE, Retryable),
    ],
)
async def test_failures_have_a_code_and_never_the_credential(
    items: dict[str, str], code: ErrorCode, kind: type[OncallError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(FlagServer()) as server:
        for attempt in (REMEDY.precheck(asks(server), session(server, **items)), _apply(server, items)):
            with pytest.raises(kind) as caught:
                await attempt
            assert caught.value.code is code
            shown = "".join(traceback.format_exception(caught.value))
            assert "canary" not in shown
            assert server.credential not in caplog.text
            assert "canary" not in caplog.text
        assert server.version == 7


async def _apply(server: FlagServer, items: dict[str, str]) -> Effect:
    return await REMEDY.apply(asks(server), session(server, **items), Reading())


async def test_an_unwell_service_is_retryable_and_another_flags_answer_refused() -> None:
    async with serving(FlagServer()) as server:
        server.get_status = 503
        with pytest.raises(Retryable):
            await REMEDY.precheck(asks(server), session(server))
        server.get_status = None
        with pytest.raises(Terminal) as caught:
            await REMEDY.precheck(DisableFlag(region="us-east-1", flag="other", expected_version=7), session(server))
        assert caught.value.code is ErrorCode.NOT_FOUND


async def test_what_a_hostile_service_says_is_bounded_before_it_is_kept() -> None:
    client = {"instance": "x" * 60, "region": "r", "version": 99, "seen_at": "2999-01-01T00:00:00Z"}
    long = {"updated_at": "t" * 9_000, "updated_by": "\x1b[2J\u202e\x00\n\ud800" * 9_000, "clients": [client] * 4_000}
    server = FlagServer(lies={**long, "surprise": "y" * 9_000})
    async with prechecked(server) as (parameters, s, before):
        effect = await REMEDY.apply(parameters, s, before)
        proof = await REMEDY.verify(parameters, s, before, effect)
    for values in (before.values, effect.values, proof.values):
        assert len(canonical(values)) < 1_500
        assert all(text.isprintable() for text in values.values() if isinstance(text, str))
    assert before.values["clients"] == 4_000


@pytest.mark.parametrize(
    "lies", [{"version": 2**53}, {"version": -1}, {"version": 10**4000}, {"clients": [{}] * 20_000}, {"updated_by": {}}]
)
async def test_a_state_that_no_flag_can_have_is_refused(lies: dict[str, object]) -> None:
    async with serving(FlagServer(lies=lies)) as server:
        with pytest.raises(Terminal) as caught:
            await REMEDY.precheck(asks(server), session(server))
        assert caught.value.code is ErrorCode.TARGET_REFUSED
        assert len(caught.value.message) < 200
