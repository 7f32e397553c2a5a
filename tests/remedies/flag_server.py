"""A real HTTP server with the flag service's management API, and the ways in which one misbehaves."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from aiohttp import web


@dataclass
class FlagClient:
    """A polling instance: takes a new version `lag_s` after the write, or never; without `polls`, dead."""

    instance: str
    lag_s: float | None = 0.0
    polls: bool = True


@dataclass
class FlagServer:
    """One flag in one region. `misbehaviour` is consumed by the next writes, one each.

    `lies` replace fields of its answers. Misbehaviours: "drop_after" (applies, then cuts the connection),
    "drop_before" (cuts it without applying), "500", "500_after", "slow" (longer than the answer timeout),
    "conflict_before" (somebody else writes first).
    """

    key: str = "reads-v2"
    region: str = "us-east-1"
    enabled: bool = True
    version: int = 7
    updated_by: str = "release-bot"
    credential: str = field(default_factory=lambda: f"canary-flag-{secrets.token_hex(12)}")
    clients: list[FlagClient] = field(default_factory=lambda: [FlagClient("order-1"), FlagClient("order-2")])
    misbehaviour: list[str] = field(default_factory=list)
    get_status: int | None = None
    remember_keys: bool = True
    clients_die_on_change: bool = False
    lies: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    raw_paths: list[str] = field(default_factory=list)
    writes: list[dict[str, Any]] = field(default_factory=list)
    _results: dict[str, dict[str, Any]] = field(default_factory=dict)
    _changed_at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

    def set(self, enabled: bool, by: str) -> None:
        """A write by anybody."""
        self.enabled, self.updated_by = enabled, by
        self.version += 1
        self._changed_at = datetime.now(UTC)

    def state(self) -> dict[str, Any]:
        """The API's object."""
        now = datetime.now(UTC)
        clients = []
        for client in self.clients:
            since = (now - self._changed_at).total_seconds()
            current = client.lag_s is not None and since >= client.lag_s
            dead = not client.polls or (self.clients_die_on_change and not self.enabled)
            clients.append(
                {
                    "instance": client.instance,
                    "region": self.region,
                    "service": client.instance.rsplit("-", 1)[0],
                    "version": self.version if current else self.version - 1,
                    "seen_at": (now - timedelta(seconds=20 if dead else 0.3)).isoformat(),
                }
            )
        return {
            "key": self.key,
            "region": self.region,
            "enabled": self.enabled,
            "version": self.version,
            "updated_at": self._changed_at.isoformat(),
            "updated_by": self.updated_by,
            "clients": clients,
            **self.lies,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every path: what reached the server is recorded as it stood in the request line."""
        self.raw_paths.append(request.raw_path)
        if request.headers.get("Authorization") != f"Bearer {self.credential}":
            return _error(401, "unauthorized")
        prefix = "/api/admin/flags/"
        if not request.rel_url.raw_path.startswith(prefix) or request.query.get("region") != self.region:
            return _error(404, "unknown_flag")
        if unquote(request.raw_path.partition("?")[0].removeprefix(prefix)) != self.key:
            return _error(404, "unknown_flag")
        if request.method == "GET":
            if self.get_status is not None:
                return _error(self.get_status, "unwell")
            return web.json_response(self.state())
        return await self._put(request, await request.json())

    async def _put(self, request: web.BaseRequest, write: dict[str, Any]) -> web.StreamResponse:
        how = self.misbehaviour.pop(0) if self.misbehaviour else ""
        if how == "drop_before":
            return _cut(request)
        if how == "500":
            return _error(500, "internal")
        if how == "conflict_before":
            self.set(True, "m.okafor")
        self.writes.append(write)
        key = write["idempotency_key"]
        if self.remember_keys and key in self._results:
            return web.json_response({**self._results[key], "replayed": True})
        if write["expected_version"] != self.version:
            return _error(409, "version_conflict")
        self.set(write["enabled"], write["updated_by"])
        self._results[key] = self.state()
        if how == "drop_after":
            return _cut(request)
        if how == "500_after":
            return _error(500, "internal")
        if how == "slow":
            await asyncio.sleep(20)
        return web.json_response(self.state())


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _error(status: int, code: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": code}}, status=status)


@contextlib.asynccontextmanager
async def serving(server: FlagServer) -> AsyncIterator[FlagServer]:
    """`server` on a free port of loopback; `server.url` says where."""
    # Not an Application: its router would decode paths, and match no newline.
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
