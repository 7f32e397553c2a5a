"""What PostgreSQL says about itself right now, through its statistics views and a read-only role.

Views: https://www.postgresql.org/docs/current/monitoring-stats.html and pg_stat_statements. Query texts are
untrusted; they come back with their literals masked and clipped.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
from pydantic import SecretStr, ValidationError

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.frozen import Frozen
from oncall.probes.database_address import database_address
from oncall.probes.deadline import bounded

MAX_STATEMENTS = 50
TEXT_CHARS = 240
SLOW_S = 0.5
_ABANDON_S = 5.0
_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")
_PARAMETER = re.compile(r"\$\d+")

Answer = TypeVar("Answer")


class ConnectionState(Frozen):
    """Client backends of one database in one state; `oldest_s` is the longest time in it, `on_lock` wait for a lock."""

    state: str
    count: int
    on_lock: int
    oldest_s: float


class ActiveStatement(Frozen):
    """One statement that runs now. `pid` with `backend_start` (UTC, ISO 8601) identifies its backend."""

    pid: int
    backend_start: str
    query_id: str | None
    role: str
    database: str
    age_s: float
    wait_event: str | None
    text: str


class StatementTotals(Frozen):
    """What pg_stat_statements accumulated for one statement; milliseconds."""

    query_id: str
    calls: int
    total_ms: float
    mean_ms: float
    max_ms: float
    text: str


class Activity(Frozen):
    """One look at one database. `statements` is None where pg_stat_statements is not installed."""

    database: str
    connections: tuple[ConnectionState, ...]
    max_connections: int
    active: tuple[ActiveStatement, ...]
    statements: tuple[StatementTotals, ...] | None


_CONNECTIONS = """
SELECT coalesce(state, 'unknown') AS state, count(*)::int AS count,
       (count(*) FILTER (WHERE wait_event_type = 'Lock'))::int AS on_lock,
       coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8 AS oldest_s
FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()
GROUP BY 1 ORDER BY 1
"""
_ACTIVE = f"""
SELECT pid, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS backend_start,
       query_id::text AS query_id, coalesce(usename::text, '') AS role, datname::text AS database,
       extract(epoch FROM clock_timestamp() - query_start)::float8 AS age_s,
       wait_event_type || ':' || wait_event AS wait_event, coalesce(left(query, 2000), '') AS text
FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()
  AND query_start < clock_timestamp() - make_interval(secs => {SLOW_S})
ORDER BY query_start, pid LIMIT {MAX_STATEMENTS}
"""  # noqa: S608 - constants of this module
# Without this PostgreSQL hides other roles' sessions instead of refusing: an empty answer would look like calm.
_SIGHT = "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"
_TOTALS = """
WITH mine AS (
    SELECT queryid, calls, total_exec_time, mean_exec_time, max_exec_time, query
    FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = $1 AND calls > 0 AND queryid IS NOT NULL)
SELECT queryid::text AS query_id, sum(calls)::int8 AS calls, sum(total_exec_time)::float8 AS total_ms,
       max(mean_exec_time)::float8 AS mean_ms, max(max_exec_time)::float8 AS max_ms,
       coalesce(left(min(query), 2000), '') AS text
FROM (
    (SELECT * FROM mine ORDER BY total_exec_time DESC LIMIT 4) UNION
    (SELECT * FROM mine ORDER BY mean_exec_time DESC LIMIT 4)) AS top
GROUP BY queryid ORDER BY total_ms DESC
"""


def masked(text: str) -> str:
    """A query text on one line, its literals replaced by `?`, clipped to TEXT_CHARS; parameters stay."""
    parameters = _PARAMETER.findall(text)
    text = _LITERAL.sub("?", _PARAMETER.sub("\x00", text))
    for parameter in parameters:
        text = text.replace("\x00", parameter, 1)
    text = " ".join(text.split())
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"


async def look(where: str, server: str, username: str, password: SecretStr, database: str) -> Activity:
    """One look at `database` on `server` (`host:port`): connections by state, active statements of at least SLOW_S
    seconds (oldest first), and the statements with the highest total and mean time.

    Raises PROBE_FAILED: Terminal when the server refuses, Retryable when it is away, full, or slower than the deadline.
    """
    what = f"PostgreSQL in {where}, database {database}"
    try:
        host, port, ssl = database_address(server)
    except ValueError:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: the credential's server field is not host[:port]") from None

    async def probe() -> Activity:
        connecting = asyncio.ensure_future(
            asyncpg.connect(
                host=host,
                port=port,
                user=username,
                password=password.get_secret_value(),
                database=database,
                ssl=ssl,
                statement_cache_size=0,
                timeout=_ABANDON_S,
                server_settings={"application_name": "oncall-probe"},
            )
        )
        try:
            connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # Cancelling a connect in the middle makes asyncpg log an exception that nobody can retrieve: let it end
            # by itself and hang up then.
            connecting.add_done_callback(_hang_up)
            raise
        try:
            states = await connection.fetch(_CONNECTIONS, database)
            active = await connection.fetch(_ACTIVE, database)
            try:
                totals = await connection.fetch(_TOTALS, database)
            except (asyncpg.UndefinedTableError, asyncpg.ObjectNotInPrerequisiteStateError):
                totals = None
            limit = await connection.fetchval("SELECT current_setting('max_connections')::int")
            if not await connection.fetchval(_SIGHT):
                raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: the read role may not see other sessions (pg_monitor)")
        finally:
            # Not close(): saying goodbye politely waits for a server that may be hanging.
            connection.terminate()
        return Activity(
            database=database,
            connections=tuple(ConnectionState(**dict(row)) for row in states),
            max_connections=limit,
            active=tuple(ActiveStatement(**_cleaned(row)) for row in active),
            statements=None if totals is None else tuple(StatementTotals(**_cleaned(row)) for row in totals),
        )

    return await _mapped(what, lambda: bounded(what, probe))


def _hang_up(connecting: "asyncio.Future[asyncpg.Connection[asyncpg.Record]]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


def _cleaned(row: Any) -> dict[str, Any]:
    return {**dict(row), "text": masked(row["text"])}


async def _mapped(what: str, probe: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        return await probe()
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: refused the read credential ({error.sqlstate})") from None
    except (asyncpg.TooManyConnectionsError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
        raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: no connection could be opened") from None
    except asyncpg.PostgresError as error:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: refused to answer ({error.sqlstate})") from None
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: not reachable") from None
    except ValidationError:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: answered what its statistics views never hold") from None
