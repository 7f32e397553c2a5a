"""Contract: the read credentials read and change nothing; the write credential may end other backends."""

from __future__ import annotations

import asyncpg
import pytest
import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.estate.running import RunningEstate

REGION = "us-east-1"
_APP_BACKEND = "SELECT pid FROM pg_stat_activity WHERE datname = 'analytics' AND usename = 'app_analytics' LIMIT 1"


async def _connect(
    estate: RunningEstate, item: str, region: str = REGION, database: str = "analytics"
) -> asyncpg.Connection[asyncpg.Record]:
    login = estate.item(item)[region]
    host, port = login["server"].split(":")
    return await asyncpg.connect(
        host=host,
        port=int(port),
        user=login["username"],
        password=login["password"],
        database=database,
        ssl=False,
    )


async def test_reader_sees_queries_but_changes_nothing(estate: RunningEstate) -> None:
    connection = await _connect(estate, "prod-db-readonly")
    try:
        rows = await connection.fetch("SELECT query FROM pg_stat_activity WHERE usename = 'app_analytics'")
        assert any("events" in row["query"] for row in rows)
        statements = await connection.fetch("SELECT query FROM pg_stat_statements WHERE query LIKE '%events%'")
        assert statements
        assert not await connection.fetch("SELECT 1 FROM pg_stat_statements WHERE query ILIKE '%password%'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM events")
        await connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE events SET status = 'x'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE mine (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TEMP TABLE mine (id int)")
        pid = await connection.fetchval(_APP_BACKEND)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT pg_terminate_backend($1)", pid)
    finally:
        await connection.close()


async def test_writer_ends_backends_but_touches_no_data(estate: RunningEstate) -> None:
    connection = await _connect(estate, "prod-db-rwaccess")
    try:
        pid = await connection.fetchval(_APP_BACKEND)
        assert await connection.fetchval("SELECT pg_terminate_backend($1)", pid) is True
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE events SET status = 'x'")
    finally:
        await connection.close()


async def test_every_region_has_its_own_passwords(estate: RunningEstate) -> None:
    passwords = {login["password"] for login in estate.item("prod-db-readonly").values()}
    passwords |= {login["password"] for login in estate.item("prod-db-rwaccess").values()}
    assert len(passwords) == 6
    connection = await _connect(estate, "prod-db-readonly", "eu-west-1", "api_gateway")
    await connection.close()


def test_cache_reader_sees_statistics_and_no_data(estate: RunningEstate) -> None:
    login = estate.item("cache-readonly")[REGION]
    host, port = login["server"].split(":")
    cache = redis.Redis(
        host=host,
        port=int(port),
        username=login["username"],
        password=login["password"],
        retry=Retry(NoBackoff(), 0),
    )
    assert cache.ping()
    info = cache.info()
    assert isinstance(info, dict)
    assert info["keyspace_hits"] > 0
    assert cache.config_get("maxmemory*")
    cache.slowlog_get()
    assert cache.client_list()
    assert cache.dbsize()
    cache.execute_command("LATENCY", "LATEST")  # type: ignore[no-untyped-call]
    for command in (("GET", "order:1"), ("SET", "x", "1"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "SET", "x", "1")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            cache.execute_command(*command)  # type: ignore[no-untyped-call]
    cache.close()
    stranger = redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()
