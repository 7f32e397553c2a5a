"""One service instance: an HTTP server over a database, a cache and other services.

Each request takes a connection from the pool, decides by flag which query to run, reads its cache and calls its
callees. A failure of any callee is a failure of the request, up to the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import redis.asyncio
import redis.exceptions
from aiohttp import web

from estate import queries
from estate.flags import iso
from estate.flagset import Effect
from estate.http import serve
from estate.telemetry import Emitter, now_us
from estate.topology import ENTITIES, SERVICES, Operation, Service, instance_name

POOL_SIZE = 4
ACQUIRE_TIMEOUT_S = 0.8
# Twice what the acquire timeout needs: a busy machine must not turn into errors.
CALL_TIMEOUT_S = 2.0
_CACHE_TIMEOUT_S = 0.5
_CACHE_TTL_S = 60
_POLL_S = 1.0


@dataclass(frozen=True, repr=False)
class Config:
    """What an instance is started with."""

    region: str
    service: str
    listener: socket.socket
    recorder: Path
    flag_service: str
    flag_keys: dict[Effect, str]
    database_port: int
    database_password: str
    cache_port: int
    cache_password: str
    addresses: dict[str, str]  # callee -> base URL


class PoolTimeout(Exception):
    """No connection became free in time."""


class UpstreamFailed(Exception):
    """A callee answered with an error, or not in time; `status` is what our caller gets."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class FlagClient:
    """Polls the flag service and holds the last answer, as an OpenFeature provider does."""

    def __init__(self, config: Config, session: aiohttp.ClientSession, emitter: Emitter) -> None:
        self._config = config
        self._session = session
        self._emitter = emitter
        self._etag: str | None = None
        self.held: dict[str, dict[str, Any]] = {}
        self.ready = asyncio.Event()

    def is_on(self, effect: Effect) -> bool:
        """Whether the service's flag with this effect is on; off until the first answer."""
        flag = self.held.get(self._config.flag_keys[effect])
        return bool(flag and flag["value"])

    async def run(self) -> None:
        """Polls every second until cancelled; keeps the last answer when the service is away."""
        while True:
            try:
                changed = await self._poll()
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as problem:
                self._emitter.log("WARN", f"flag service did not answer: {type(problem).__name__}")
                changed = False
            # Polling again at once presents the new ETag: the flag service then knows that it is obeyed.
            if not changed:
                await asyncio.sleep(_POLL_S)

    async def _poll(self) -> bool:
        config = self._config
        name = instance_name(config.service)
        context = {"targetingKey": name, "region": config.region, "service": config.service}
        headers = {"If-None-Match": self._etag} if self._etag else {}
        url = f"{config.flag_service}/ofrep/v1/evaluate/flags"
        async with self._session.post(url, json={"context": context}, headers=headers) as response:
            if response.status == 304:
                return False
            response.raise_for_status()
            body = await response.json()
            self._take_over(body["flags"])
            self._etag = response.headers["ETag"]
            self.ready.set()
            return True

    def _take_over(self, flags: list[dict[str, Any]]) -> None:
        first = not self.held
        for flag in flags:
            key, version = flag["key"], flag["metadata"]["version"]
            old = self.held.get(key)
            if old is not None and old["version"] == version:
                continue
            self.held[key] = {"value": flag["value"], "version": version, "since": iso(time.time())}
            if not first:
                value = "on" if flag["value"] else "off"
                self._emitter.log("INFO", f"flag configuration changed: key={key} value={value} version={version}")


class Instance:
    """The running instance."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._service: Service = SERVICES[config.service]
        self._started_at = iso(time.time())
        self._emitter = Emitter(
            config.recorder,
            config.region,
            config.service,
            instance_name(config.service),
            self._service.callees,
        )
        self._queries = (
            queries.lookup(self._service),
            queries.joined_lookup(self._service),
            queries.runaway_lookup(self._service),
            queries.touch(self._service),
        )
        self._pool: asyncpg.Pool[asyncpg.Record]
        self._cache: redis.asyncio.Redis
        self._session: aiohttp.ClientSession
        self._flags: FlagClient

    async def run(self) -> None:
        """Serves until killed."""
        config = self._config
        self._pool = await asyncpg.create_pool(
            host="127.0.0.1",
            port=config.database_port,
            user=self._service.role,
            password=config.database_password,
            database=self._service.database,
            ssl=False,
            min_size=1,
            max_size=POOL_SIZE,
            # The services change no session state, so the usual reset is a round trip for nothing.
            reset=_no_reset,
            server_settings={"application_name": instance_name(config.service)},
        )
        self._cache = redis.asyncio.Redis(
            host="127.0.0.1",
            port=config.cache_port,
            username="app",
            password=config.cache_password,
            socket_timeout=_CACHE_TIMEOUT_S,
            socket_connect_timeout=_CACHE_TIMEOUT_S,
            client_name=instance_name(config.service),
        )
        # Callees keep idle connections for 75 s: dropping ours earlier avoids writing into a closing one.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._flags = FlagClient(config, self._session, self._emitter)
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/info", self._info)
        for name, operation in self._service.operations.items():
            app.router.add_route(operation.method, f"/{name}", self._handler(name, operation))
        polling = asyncio.create_task(self._flags.run())
        await self._flags.ready.wait()
        await serve(app, config.listener)
        self._emitter.log("INFO", f"{config.service} started in {config.region}, pid {os.getpid()}")
        await asyncio.gather(polling, self._emitter.run())

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _info(self, _: web.Request) -> web.Response:
        body = {
            "service": self._config.service,
            "region": self._config.region,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "flags": self._flags.held,
        }
        return web.json_response(body)

    def _handler(self, name: str, operation: Operation) -> Any:
        label = f"{operation.method} /{name}"

        async def handle(request: web.Request) -> web.Response:
            started_us, started = now_us(), time.perf_counter()
            trace, parent = _trace_of(request)
            span = secrets.token_hex(8)
            status, level, text = 200, "INFO", ""
            body: dict[str, Any] = {}
            try:
                body = await self._answer(operation, _entity_of(request), trace, span)
            except PoolTimeout as problem:
                status, level, text = 503, "ERROR", str(problem)
            except UpstreamFailed as problem:
                status, level, text = problem.status, "ERROR", str(problem)
            except asyncpg.PostgresError as problem:
                status, level, text = 500, "ERROR", f"query failed: {type(problem).__name__}: {problem}"
            except Exception:  # noqa: BLE001 - what a service does with its own bugs: log them and answer 500
                status, level = 500, "ERROR"
                text = f"unhandled exception in {label}\n{traceback.format_exc(limit=-2).rstrip()}"
            took = time.perf_counter() - started
            self._emitter.window.latencies.append(took)
            self._emitter.span(started_us, label, trace, span, parent, int(took * 1e6))
            if level == "ERROR":
                self._emitter.window.errors += 1
                self._emitter.log("ERROR", text, trace, span)
                body = {"error": text.splitlines()[0]}
            self._emitter.log("INFO", f"{label} {status} {took * 1000:.1f}ms", trace, span)
            return web.json_response(body, status=status)

        return handle

    async def _answer(self, operation: Operation, entity: int, trace: str, span: str) -> dict[str, Any]:
        row = await self._read(operation, entity)
        quota = await self._cached(entity, row)
        for callee, name in operation.calls:
            await self._call(callee, name, entity, trace, span)
        if self._flags.is_on(Effect.BROKEN_ANSWERS):
            return _present(row, quota)
        if self._flags.is_on(Effect.COMPACT_ANSWERS):
            return {"id": row["id"], "code": row["code"]}
        return dict(row)

    async def _read(self, operation: Operation, entity: int) -> asyncpg.Record:
        lookup, joined, runaway, touch = self._queries
        emitter = self._emitter
        emitter.pool_changed(waiting=1)
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except TimeoutError:
            emitter.window.pool_timeouts += 1
            raise PoolTimeout(
                f'timed out after {ACQUIRE_TIMEOUT_S}s waiting for a connection from pool "{self._service.database}"'
                f" (size={self._pool.get_size()} in_use={emitter.in_use} waiting={emitter.waiting})"
            ) from None
        finally:
            emitter.pool_changed(waiting=-1)
        emitter.pool_changed(in_use=1)
        try:
            started = time.perf_counter()
            # The flag is looked at with the connection in hand: a request that queued for one must not act on a
            # choice made before it queued.
            if self._flags.is_on(Effect.RUNAWAY_READS):
                sql = runaway
            elif self._flags.is_on(Effect.JOINED_READS):
                sql = joined
            else:
                sql = lookup
            row = await connection.fetchrow(sql, entity)
            if operation.writes:
                await connection.execute(touch, entity)
            emitter.window.db_latencies.append(time.perf_counter() - started)
        finally:
            emitter.pool_changed(in_use=-1)
            await self._pool.release(connection)
        if row is None:
            raise LookupError(f"no row {entity} in {self._service.entity}")
        return row

    async def _cached(self, entity: int, row: asyncpg.Record) -> dict[str, Any]:
        """What the cache holds for this row; put there when missing. A cache that is away is a miss."""
        key = f"{self._service.name}:{entity}"
        try:
            if (text := await self._cache.get(key)) is not None:
                self._emitter.window.cache_hits += 1
                held: dict[str, Any] = json.loads(text)
                return held
            self._emitter.window.cache_misses += 1
            fresh = {"id": row["id"], "status": row["status"]}
            await self._cache.set(key, json.dumps(fresh), ex=_CACHE_TTL_S)
        except (redis.exceptions.RedisError, OSError) as problem:
            self._emitter.log("WARN", f"cache unavailable: {type(problem).__name__}")
            return {"id": row["id"], "status": row["status"]}
        return fresh

    async def _call(self, callee: str, name: str, entity: int, trace: str, span: str) -> None:
        method = SERVICES[callee].operations[name].method
        started = time.perf_counter()
        url = f"{self._config.addresses[callee]}/{name}?id={entity}"
        headers = {"traceparent": f"00-{trace}-{span}-01"}
        try:
            async with self._session.request(method, url, headers=headers) as response:
                await response.read()
                status = response.status
        except TimeoutError:
            self._call_failed(callee, started)
            raise UpstreamFailed(
                f"upstream timeout: {callee} did not answer {method} /{name} within {CALL_TIMEOUT_S}s", 504
            ) from None
        except aiohttp.ClientError as problem:
            self._call_failed(callee, started)
            raise UpstreamFailed(
                f"upstream error: {method} /{name} to {callee}: {type(problem).__name__}", 502
            ) from None
        if status >= 500:
            self._call_failed(callee, started)
            raise UpstreamFailed(f"upstream error: {callee} answered {status} to {method} /{name}", 502)
        self._emitter.window.client_latencies[callee].append(time.perf_counter() - started)

    def _call_failed(self, callee: str, started: float) -> None:
        self._emitter.window.client_errors[callee] += 1
        self._emitter.window.client_latencies[callee].append(time.perf_counter() - started)


def _present(row: asyncpg.Record, quota: dict[str, Any]) -> dict[str, Any]:
    """The answer with the tier spelled out; `tier` is NULL for most rows, which this forgets."""
    return {
        "id": row["id"],
        "code": row["code"],
        "tier": row["tier"].upper(),
        "status": quota["status"],
        "amount": {"minor": row["amount_cents"], "currency": "USD"},
    }


async def _no_reset(_: Any) -> None:
    return None


def _entity_of(request: web.Request) -> int:
    text = request.query.get("id", "1")
    return min(max(int(text), 1), ENTITIES) if text.isdecimal() else 1


def _trace_of(request: web.Request) -> tuple[str, str | None]:
    """Trace id and parent span id from W3C `traceparent`; a new trace without one."""
    parts = request.headers.get("traceparent", "").split("-")
    if len(parts) == 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        return parts[1], parts[2]
    return secrets.token_hex(16), None


def run(config: Config) -> None:
    """Runs an instance in this process."""
    try:
        asyncio.run(Instance(config).run())
    except Exception as problem:
        print(f"{config.region}/{config.service}: {problem!r}", file=sys.stderr, flush=True)
        raise
