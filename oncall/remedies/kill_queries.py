"""Ends the running executions of one statement, and proves that they stay away.

PostgreSQL reuses process ids, so a victim is a pid *and* a backend start, and each kill is one statement that checks
both and every approved condition again: a backend that has gone on to other work in the meantime is left alone.
`pg_terminate_backend` is called without its timeout, which costs 100 ms for each backend; we poll ourselves.
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from oncall.config import in_region
from oncall.model.action import KillQueries
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.remedies.database import Database, open_database
from oncall.remedies.remedy import Applied, Effect, Proof, Reading, Remedy, Session

GONE_TIMEOUT_S = 5.0
RECONNECT_TIMEOUT_S = 8.0
RELAPSE_S = 1.5
RELAPSE_AGE_S = 1.0
POLL_S = 0.05
RECONNECT_POLL_S = 0.2

# $1 role, $2 database, $3 query id, $4 minimum age in seconds. As text, because a cast to `name` cuts at 63 bytes.
_MATCHES = """
    backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()
    AND usename::text = $1 AND datname::text = $2 AND query_id = $3
    AND query_start <= clock_timestamp() - make_interval(secs => $4)
"""

_SELECT = f"""
    SELECT pid, backend_start, extract(epoch FROM clock_timestamp() - query_start)::float8 AS age_s
    FROM pg_stat_activity WHERE {_MATCHES} ORDER BY query_start, pid
"""  # noqa: S608 - a constant; every value is bound

_KILL = f"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE {_MATCHES} AND pid = $5 AND backend_start = $6
"""  # noqa: S608 - a constant; every value is bound

_STILL_MATCHING = f"""
    SELECT count(*) FROM pg_stat_activity JOIN unnest($5::int[], $6::timestamptz[]) AS v (victim, since)
    ON pid = victim AND backend_start = since WHERE {_MATCHES}
"""  # noqa: S608 - a constant; every value is bound

_ALIVE = """
    SELECT count(*) FROM pg_stat_activity JOIN unnest($1::int[], $2::timestamptz[]) AS v (victim, since)
    ON pid = victim AND backend_start = since
"""

_COUNT = f"""
    SELECT count(*) FROM pg_stat_activity WHERE {_MATCHES}
"""  # noqa: S608 - a constant; every value is bound

_STARTED_SINCE = f"""
    SELECT count(*) FROM pg_stat_activity WHERE {_MATCHES} AND query_start > $5
"""  # noqa: S608 - a constant; every value is bound

# Without the right to see other sessions, or without query ids, everything below would count zero: a lie.
_SIGHT = """
    SELECT clock_timestamp() AS now, pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
        (SELECT query_id IS NOT NULL FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS has_ids
"""


class KillQueriesRemedy(Remedy[KillQueries]):
    """`reference` is the vault item's section, with `{region}` for the region and the fields `username`, `password`
    and `server` below it; timeouts are seconds. It cannot be rolled back: what was killed was running away.
    """

    repeatable = True

    def __init__(
        self,
        reference: str,
        gone_timeout_s: float = GONE_TIMEOUT_S,
        relapse_s: float = RELAPSE_S,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
    ) -> None:
        self._reference = reference
        self._gone_timeout_s = gone_timeout_s
        self._relapse_s = relapse_s
        self._reconnect_timeout_s = reconnect_timeout_s

    async def precheck(self, parameters: KillQueries, session: Session) -> Reading:
        """Selects the victims, oldest first, and how many match. Nothing to do when none does.

        The victims go into the ledger with the reading, so that a second attempt has the same ones: choosing anew
        could kill more in total than was approved.
        """
        conditions = _conditions(parameters)
        async with await self._open(parameters, session) as database:
            sight = (await database.fetch(_SIGHT))[0]
            if not sight["sees_all"]:
                raise Terminal(ErrorCode.TARGET_REFUSED, "the database role cannot see other sessions' statements")
            if not sight["has_ids"]:
                raise Terminal(ErrorCode.TARGET_REFUSED, "the database computes no query ids (compute_query_id)")
            rows = await database.fetch(_SELECT, *conditions)
        chosen = rows[: parameters.max_count]
        values: dict[str, Any] = {
            "matching": len(rows),
            "selected": len(chosen),
            "oldest_s": round(rows[0]["age_s"], 3) if rows else 0.0,
            "read_at": sight["now"].isoformat(),
            "victims": [{"pid": row["pid"], "backend_start": row["backend_start"].isoformat()} for row in chosen],
        }
        if not rows:
            return Reading(values=values, nothing=True, detail="nothing runs any more that matches")
        return Reading(values=values)

    async def read_back(self, parameters: KillQueries, session: Session, before: Reading) -> Effect | None:
        """No victim executes the statement any more: ended by an earlier attempt, or by itself."""
        victims = _victims(parameters, before)
        async with await self._open(parameters, session) as database:
            remaining = await database.count(_STILL_MATCHING, *_conditions(parameters), *victims)
        if remaining:
            return None
        count = len(victims[0])
        return Effect(applied=Applied.YES, values={"gone": count}, detail=f"the {count} selected executions are gone")

    async def apply(self, parameters: KillQueries, session: Session, before: Reading) -> Effect:
        """Ends each victim that still matches, then waits until it is gone, over a new connection when one is lost."""
        pids, starts = _victims(parameters, before)
        pending = dict(zip(pids, starts, strict=True))
        sent: list[int] = []
        deadline: float | None = None  # set by the first loss after a kill may have been sent
        while True:
            sending = False
            try:
                async with await self._open(parameters, session) as database:
                    for pid, start in list(pending.items()):
                        sending = True
                        if await database.fetch(_KILL, *_conditions(parameters), pid, start):
                            sent.append(pid)
                        del pending[pid]
                    return await self._gone(database, (pids, starts), sent)
            except Terminal:
                # A plain no: every kill before it is accounted for, unless one was lost.
                if not sent and deadline is None:
                    raise
                return _unknown(sent, "the database refused to go on among the kills")
            except Retryable:
                if deadline is None and not (sending or sent):
                    raise
                deadline = deadline or time.monotonic() + self._reconnect_timeout_s
                if time.monotonic() >= deadline:
                    return _unknown(sent, "the connection was lost among the kills and did not come back in time")
            await asyncio.sleep(RECONNECT_POLL_S)

    async def verify(self, parameters: KillQueries, session: Session, before: Reading, effect: Effect) -> Proof:
        """Verified when nothing matches, now and 1.5 s later, and nothing that began since the selection has run
        for a second then: with the cause still there, callers would have filled the pool again.
        """
        role, database_name, query_id, _ = conditions = _conditions(parameters)
        since = datetime.fromisoformat(str(before.values["read_at"]))
        async with await self._open(parameters, session) as database:
            matching = await database.count(_COUNT, *conditions)
            await asyncio.sleep(self._relapse_s)
            later = await database.count(_COUNT, *conditions)
            relapsed = await database.count(_STARTED_SINCE, role, database_name, query_id, RELAPSE_AGE_S, since)
        values = {**effect.values, "matching": matching, "matching_later": later, "relapsed": relapsed}
        if relapsed:
            return Proof(verified=False, values=values, detail=f"relapsed: {relapsed} new executions run away again")
        if matching or later:
            selected, found = before.values.get("selected", 0), before.values.get("matching", 0)
            why = f"; {found} matched and {selected} were approved at most" if found > selected else ""
            return Proof(verified=False, values=values, detail=f"{max(matching, later)} still run{why}")
        return Proof(verified=True, values=values, detail=effect.detail)

    async def _gone(self, database: Database, victims: tuple[list[int], list[datetime]], sent: list[int]) -> Effect:
        """Polls until no backend that was told to end is there any more."""
        ended = [(pid, start) for pid, start in zip(*victims, strict=True) if pid in sent]
        pids, starts = [pid for pid, _ in ended], [start for _, start in ended]
        deadline = time.monotonic() + self._gone_timeout_s
        while True:
            alive = await database.count(_ALIVE, pids, starts) if ended else 0
            if not alive or time.monotonic() >= deadline:
                break
            await asyncio.sleep(POLL_S)
        values = {"terminated": len(sent), "gone": len(sent) - alive, "ended_before": len(victims[0]) - len(sent)}
        if alive:
            return Effect(applied=Applied.YES, values=values, detail=f"{alive} backends were told to end and still run")
        return Effect(applied=Applied.YES, values=values, detail=f"{len(sent)} executions ended")

    async def _open(self, parameters: KillQueries, session: Session) -> AbstractAsyncContextManager[Database]:
        base = in_region(self._reference, parameters.region)
        return open_database(
            server=await session.reveal(f"{base}/server"),
            username=await session.reveal(f"{base}/username"),
            password=await session.reveal(f"{base}/password"),
            name=parameters.database,
        )


def _conditions(parameters: KillQueries) -> tuple[str, str, int, float]:
    """What `_MATCHES` binds."""
    query_id = int(parameters.query_id)
    if not -(2**63) <= query_id < 2**63:
        raise Terminal(ErrorCode.NOT_FOUND, "no statement can have this query id")
    return parameters.role, parameters.database, query_id, float(parameters.min_age_s)


def _unknown(sent: list[int], detail: str) -> Effect:
    return Effect(applied=Applied.UNKNOWN, values={"terminated": len(sent)}, detail=detail)


def _victims(parameters: KillQueries, before: Reading) -> tuple[list[int], list[datetime]]:
    """Pids and backend starts, from the reading as it was recorded: no more than were approved, whoever recorded it."""
    try:
        victims = [(int(v["pid"]), datetime.fromisoformat(v["backend_start"])) for v in before.values["victims"]]
    except (KeyError, TypeError, ValueError):
        raise Terminal(ErrorCode.LEDGER_BROKEN, "the recorded reading names no victims") from None
    if len(victims) > parameters.max_count:
        raise Terminal(ErrorCode.LEDGER_BROKEN, "the recorded reading names more victims than were approved")
    return [pid for pid, _ in victims], [start for _, start in victims]
