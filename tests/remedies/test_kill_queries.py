"""Contract: exactly the approved statement's executions end, at most as many as approved, and it is proven.

Against a real PostgreSQL. Other statements, roles, databases and younger executions survive; a reused pid is no
victim; a second attempt ends nobody new; a relapse is seen; a role that cannot see is told from an idle database; no
failure holds a password.
"""

import asyncio
import traceback
from datetime import datetime, timedelta

import pytest

from oncall.model.action import KillQueries
from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from oncall.remedies.kill_queries import KillQueriesRemedy
from oncall.remedies.remedy import Applied, Session
from tests.remedies.postgres import OTHER, Cluster
from tests.remedies.proxy import Proxy
from tests.remedies.vault import Vault

ITEM = "op://Infrastructure-Write/prod-db-rwaccess/{region}"
DIGEST = "sha256:" + "cd" * 32
REMEDY = KillQueriesRemedy(ITEM, reconnect_timeout_s=1.0)


def session(cluster: Cluster, role: str = "oncall_write", **items: str) -> Session:
    fields = {"username": role, "password": cluster.password, "server": f"127.0.0.1:{cluster.port}", **items}
    base = ITEM.replace("{region}", "us-east-1")
    return Session(DIGEST, Vault({f"{base}/{name}": value for name, value in fields.items()}))


def kills(query_id: str, max_count: int = 10, min_age_s: int = 1, database: str = "orders") -> KillQueries:
    return KillQueries(
        region="us-east-1",
        database=database,
        role="app_order",
        query_id=query_id,
        min_age_s=min_age_s,
        max_count=max_count,
    )


async def test_exactly_the_approved_executions_end(postgres: Cluster) -> None:
    async with (
        postgres.running(3) as victims,
        postgres.running(1, statement=OTHER) as other_statement,
        postgres.running(1, role="app_user") as other_role,
        postgres.running(1, database="users") as other_database,
    ):
        parameters = kills(await postgres.query_id(victims[0]), min_age_s=2)
        assert await postgres.query_id(other_role[0]) == parameters.query_id
        await asyncio.sleep(2.1)
        async with postgres.running(1) as younger:
            s = session(postgres)
            before = await REMEDY.precheck(parameters, s)
            assert (before.values["matching"], before.values["selected"]) == (3, 3)
            assert before.values["oldest_s"] >= 2
            assert await REMEDY.read_back(parameters, s, before) is None
            effect = await REMEDY.apply(parameters, s, before)
            assert effect.applied is Applied.YES
            assert effect.values == {"terminated": 3, "gone": 3, "ended_before": 0}
            assert await postgres.alive(victims) == 0
            assert await postgres.alive([*other_statement, *other_role, *other_database, *younger]) == 4
            back = await REMEDY.read_back(parameters, s, before)
            assert back is not None
            again = await REMEDY.apply(parameters, s, before)
            assert again.values == {"terminated": 0, "gone": 0, "ended_before": 3}


async def test_verified_when_they_stay_away(postgres: Cluster) -> None:
    async with postgres.running(2) as victims:
        parameters = kills(await postgres.query_id(victims[0]))
        await asyncio.sleep(1.1)
        s = session(postgres)
        before = await REMEDY.precheck(parameters, s)
        effect = await REMEDY.apply(parameters, s, before)
        proof = await REMEDY.verify(parameters, s, before, effect)
    assert proof.verified
    assert (proof.values["matching"], proof.values["matching_later"], proof.values["relapsed"]) == (0, 0, 0)
    assert proof.values["terminated"] == 2


async def test_a_relapse_is_seen_long_before_it_is_old_enough_to_match(postgres: Cluster) -> None:
    async with postgres.running(1) as victims:
        parameters = kills(await postgres.query_id(victims[0]), min_age_s=2)
        await asyncio.sleep(2.1)
        s = session(postgres)
        before = await REMEDY.precheck(parameters, s)
        effect = await REMEDY.apply(parameters, s, before)
        async with postgres.running(2):
            proof = await REMEDY.verify(parameters, s, before, effect)
    assert not proof.verified
    assert (proof.values["matching"], proof.values["relapsed"]) == (0, 2)
    assert "relapsed" in proof.detail


async def test_no_more_than_approved_oldest_first_also_over_two_attempts(postgres: Cluster) -> None:
    async with postgres.running(2) as oldest:
        await asyncio.sleep(0.1)
        async with postgres.running(2) as newer:
            parameters = kills(await postgres.query_id(oldest[0]), max_count=2)
            await asyncio.sleep(1.1)
            s = session(postgres)
            before = await REMEDY.precheck(parameters, s)
            assert (before.values["matching"], before.values["selected"]) == (4, 2)
            await REMEDY.apply(parameters, s, before)
            effect = await REMEDY.apply(parameters, session(postgres), before)
            assert await postgres.alive(oldest) == 0
            assert await postgres.alive(newer) == 2
            proof = await REMEDY.verify(parameters, s, before, effect)
    assert not proof.verified
    assert "4 matched and 2 were approved at most" in proof.detail


async def test_a_reused_pid_is_no_victim(postgres: Cluster) -> None:
    async with postgres.running(1) as running:
        parameters = kills(await postgres.query_id(running[0]))
        await asyncio.sleep(1.1)
        s = session(postgres)
        before = await REMEDY.precheck(parameters, s)
        [victim] = before.values["victims"]
        earlier = datetime.fromisoformat(victim["backend_start"]) - timedelta(microseconds=1)
        reused = before.model_copy(
            update={"values": {**before.values, "victims": [{**victim, "backend_start": earlier.isoformat()}]}}
        )
        effect = await REMEDY.apply(parameters, s, reused)
        assert effect.values["terminated"] == 0
        assert await postgres.alive(running) == 1


async def test_a_victim_that_went_on_to_other_work_is_left_alone(postgres: Cluster) -> None:
    async with postgres.running(1) as running:
        parameters = kills(await postgres.query_id(running[0]))
        await asyncio.sleep(1.1)
        before = await REMEDY.precheck(parameters, session(postgres))
        moved_on = parameters.model_copy(update={"query_id": "42"})
        effect = await REMEDY.apply(moved_on, session(postgres), before)
        assert effect.values["terminated"] == 0
        assert await postgres.alive(running) == 1


@pytest.mark.parametrize("query_id", ["42", "-1", str(2**63 - 1), str(-(2**63))])
async def test_nothing_to_do_is_said(postgres: Cluster, query_id: str) -> None:
    before = await REMEDY.precheck(kills(query_id), session(postgres))
    assert before.nothing
    assert before.values["matching"] == 0


async def test_hostile_names_are_only_values(postgres: Cluster) -> None:
    hostile = "app_order' OR true --"
    async with postgres.running(1) as running:
        await asyncio.sleep(1.1)
        parameters = kills(await postgres.query_id(running[0])).model_copy(update={"role": hostile})
        assert (await REMEDY.precheck(parameters, session(postgres))).nothing
        # A cast to `name` would cut this to 63 bytes; as another role it must match nothing.
        long_role = parameters.model_copy(update={"role": "app_order" + " " * 80})
        assert (await REMEDY.precheck(long_role, session(postgres))).nothing
        assert await postgres.alive(running) == 1


@pytest.mark.parametrize("query_id", [str(2**63), "9" * 20])
async def test_an_impossible_query_id_is_refused(postgres: Cluster, query_id: str) -> None:
    with pytest.raises(Terminal) as caught:
        await REMEDY.precheck(kills(query_id), session(postgres))
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_a_role_that_cannot_see_or_signal_is_refused_not_told_that_nothing_runs(postgres: Cluster) -> None:
    async with postgres.running(1) as running:
        parameters = kills(await postgres.query_id(running[0]))
        await asyncio.sleep(1.1)
        with pytest.raises(Terminal) as caught:
            await REMEDY.precheck(parameters, session(postgres, "blind"))
        assert caught.value.code is ErrorCode.TARGET_REFUSED
        before = await REMEDY.precheck(parameters, session(postgres, "seer"))
        with pytest.raises(Terminal) as caught:
            await REMEDY.apply(parameters, session(postgres, "seer"), before)
        assert caught.value.code is ErrorCode.TARGET_REFUSED
        assert await postgres.alive(running) == 1


@pytest.mark.parametrize("after_queries", [1, 2])
async def test_a_connection_lost_among_the_kills_is_read_back(postgres: Cluster, after_queries: int) -> None:
    async with postgres.running(3) as running:
        parameters = kills(await postgres.query_id(running[0]))
        await asyncio.sleep(1.1)
        before = await REMEDY.precheck(parameters, session(postgres))
        async with Proxy(postgres.port, cut_after_executes=after_queries) as proxy:
            s = session(postgres, server=f"127.0.0.1:{proxy.port}")
            effect = await REMEDY.apply(parameters, s, before)
            assert proxy.cuts == 1
        assert effect.applied is Applied.YES
        assert await postgres.alive(running) == 0


async def test_a_connection_that_never_comes_back_is_unknown(postgres: Cluster) -> None:
    async with postgres.running(2) as running:
        parameters = kills(await postgres.query_id(running[0]))
        await asyncio.sleep(1.1)
        before = await REMEDY.precheck(parameters, session(postgres))
        async with Proxy(postgres.port, cut_after_executes=1, then_refuse=True) as proxy:
            s = session(postgres, server=f"127.0.0.1:{proxy.port}")
            effect = await REMEDY.apply(parameters, s, before)
        assert effect.applied is Applied.UNKNOWN


@pytest.mark.parametrize(
    ("items", "database", "code", "kind"),
    [
        ({"password": "canary-wrong"}, "orders", ErrorCode.TARGET_REFUSED, Terminal),
        ({"username": "canary-user"}, "orders", ErrorCode.TARGET_REFUSED, Terminal),
        ({}, "no-such", ErrorCode.NOT_FOUND, Terminal),
        ({"server": "127.0.0.1:1"}, "orders", ErrorCode.TARGET_UNREACHABLE, Retryable),
        ({"server": "canary://x"}, "orders", ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": "postgresql://canary:canary@127.0.0.1"}, "orders", ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": "127.0.0.1:canary"}, "orders", ErrorCode.BAD_REFERENCE, Terminal),
        ({"server": ""}, "orders", ErrorCode.BAD_REFERENCE, Terminal),
    ],
)
async def test_failures_have_a_code_and_never_a_secret(
    postgres: Cluster, items: dict[str, str], database: str, code: ErrorCode, kind: type[OncallError]
) -> None:
    with pytest.raises(kind) as caught:
        await REMEDY.precheck(kills("42", database=database), session(postgres, **items))
    assert caught.value.code is code
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(postgres: Cluster) -> None:
    async with Proxy(postgres.port, silent=True) as proxy:
        with pytest.raises(Retryable) as caught:
            async with asyncio.timeout(4):
                await REMEDY.precheck(kills("42"), session(postgres, server=f"127.0.0.1:{proxy.port}"))
    assert caught.value.code is ErrorCode.TARGET_UNREACHABLE


async def test_a_recorded_reading_cannot_widen_what_was_approved(postgres: Cluster) -> None:
    async with postgres.running(2) as victims:
        parameters = kills(await postgres.query_id(victims[0]))
        await asyncio.sleep(1.1)
        recorded = await REMEDY.precheck(parameters, session(postgres))
        assert recorded.values["selected"] == 2
        for attempt in (REMEDY.read_back, REMEDY.apply):
            with pytest.raises(Terminal) as caught:
                await attempt(parameters.model_copy(update={"max_count": 1}), session(postgres), recorded)
            assert caught.value.code is ErrorCode.LEDGER_BROKEN
        assert await postgres.alive(victims) == 2
