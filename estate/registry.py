"""The instance registry: what Kubernetes would answer about the estate's processes, in miniature.

CPU and memory come from /proc of the real processes; flags from the instance itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from estate.flags import iso
from estate.http import error, json_errors, require
from estate.topology import REGIONS, SERVICES

_SAMPLE_S = 2.0
_INFO_TIMEOUT_S = 0.5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Instance:
    """One instance as the supervisor last reported it, with samples of its process."""

    name: str
    region: str
    service: str
    address: str
    pid: int = 0
    started_at: float = 0.0
    restarts: int = 0
    running: bool = False
    samples: list[tuple[float, float, int]] = field(default_factory=list)  # (time, CPU seconds, RSS bytes)

    def sample(self) -> None:
        """Reads the process's CPU seconds and resident bytes; keeps the last two readings."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):
            return
        user, system = stat[stat.rindex(")") + 2 :].split()[11:13]
        reading = (time.monotonic(), (int(user) + int(system)) / _TICKS_PER_S, resident)
        self.samples = [*self.samples[-1:], reading]


class Registry:
    """All instances, and the API over them."""

    def __init__(self, instances: dict[tuple[str, str], Instance], credential: str) -> None:
        self.instances = instances
        self._credential = credential
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application(middlewares=[json_errors, require(self._credential)], client_max_size=64 * 1024)
        app.router.add_get("/api/regions/{region}/services", self._services)
        app.router.add_get("/api/regions/{region}/services/{service}", self._service)
        app.cleanup_ctx.append(self._sessions)
        return app

    def update(self, event: dict[str, Any]) -> None:
        """Takes over one report of the supervisor: an instance started or ended."""
        instance = self.instances.get((event["region"], event["service"]))
        if instance is None:
            return
        instance.pid = event["pid"]
        instance.started_at = event["started_at"]
        instance.restarts = event["restarts"]
        instance.running = event["running"]
        instance.samples = []

    async def sample_forever(self) -> None:
        """Samples every process until cancelled."""
        while True:
            for instance in self.instances.values():
                instance.sample()
            await asyncio.sleep(_SAMPLE_S)

    async def _sessions(self, _: web.Application) -> Any:
        timeout = aiohttp.ClientTimeout(total=_INFO_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            self._session = session
            yield

    async def _services(self, request: web.Request) -> web.Response:
        region = request.match_info["region"]
        if region not in REGIONS:
            return error(404, "unknown_region", f"no region {region!r}", "region")
        return web.json_response({"region": region, "services": list(SERVICES)})

    async def _service(self, request: web.Request) -> web.Response:
        region, name = request.match_info["region"], request.match_info["service"]
        instance = self.instances.get((region, name))
        if instance is None:
            return error(404, "unknown_service", f"no service {name!r} in region {region!r}", "service")
        body = {
            "instances": [await self._describe(instance)],
            "database": {"name": SERVICES[name].database},
        }
        return web.json_response(body)

    async def _describe(self, instance: Instance) -> dict[str, Any]:
        instance.sample()
        described: dict[str, Any] = {
            "name": instance.name,
            "address": instance.address,
            "pid": instance.pid,
            "started_at": iso(instance.started_at),
            "restarts": instance.restarts,
            "status": "running" if instance.running else "restarting",
        }
        if instance.samples:
            first, last = instance.samples[0], instance.samples[-1]
            described["cpu_seconds"] = last[1]
            described["rss_bytes"] = last[2]
            if last[0] > first[0]:
                described["cpu_percent"] = round(100 * (last[1] - first[1]) / (last[0] - first[0]), 2)
        try:
            described["flags"] = await self._flags(instance)
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as problem:
            described["flags_error"] = f"{instance.name} did not answer: {type(problem).__name__}"
        return described

    async def _flags(self, instance: Instance) -> Any:
        assert self._session is not None
        async with self._session.get(f"http://{instance.address}/info") as response:
            response.raise_for_status()
            return (await response.json())["flags"]
