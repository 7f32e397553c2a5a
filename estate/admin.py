"""The admin API: the only place that knows which fault was injected where."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from estate import queries
from estate.faults import BadFault, Databases, Faults
from estate.flags import FlagStore
from estate.http import error, json_errors, json_object, require
from estate.registry import Registry
from estate.topology import REGIONS


class Admin:
    """HTTP over faults and the estate's own view of itself."""

    def __init__(
        self,
        token: str,
        faults: Faults,
        store: FlagStore,
        registry: Registry,
        databases: Databases,
        ports: dict[str, dict[str, int]],
    ) -> None:
        self._token = token
        self._faults = faults
        self._store = store
        self._registry = registry
        self._databases = databases
        self._ports = ports

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application(middlewares=[json_errors, require(self._token)], client_max_size=64 * 1024)
        app.router.add_get("/health", self._health)
        app.router.add_get("/faults", self._list)
        app.router.add_post("/faults", self._inject)
        app.router.add_delete("/faults/{fault_id}", self._heal)
        app.router.add_get("/state", self._state)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        down = [i.name for i in self._registry.instances.values() if not i.running]
        status = "degraded" if down else "ok"
        return web.json_response({"status": status, "instances": len(self._registry.instances), "down": down})

    async def _list(self, _: web.Request) -> web.Response:
        faults = self._faults.all()
        active = await asyncio.gather(*(self._faults.is_active(fault) for fault in faults))
        return web.json_response(
            [fault.json(is_active, truth=True) for fault, is_active in zip(faults, active, strict=True)]
        )

    async def _inject(self, request: web.Request) -> web.Response:
        body = await json_object(request)
        if body is None:
            return error(400, "bad_json", "the body must be a JSON object")
        scenario, seed = body.get("scenario"), body.get("seed")
        region, service = body.get("region"), body.get("service")
        if not isinstance(scenario, str):
            return error(400, "bad_field", "scenario must be a string", "scenario")
        if type(seed) is not int:
            return error(400, "bad_field", "seed must be an integer", "seed")
        for field, value in (("region", region), ("service", service)):
            if value is not None and not isinstance(value, str):
                return error(400, "bad_field", f"{field} must be a string", field)
        try:
            fault = await self._faults.inject(scenario, seed, region, service)
        except BadFault as bad:
            return error(409 if bad.code == "already_active" else 400, bad.code, str(bad), bad.field)
        active = await self._faults.is_active(fault)
        truth = request.query.get("truth") == "1"
        return web.json_response(fault.json(active, truth), status=202)

    async def _heal(self, request: web.Request) -> web.Response:
        fault = self._faults.get(request.match_info["fault_id"])
        if fault is None:
            return error(404, "unknown_fault", f"no fault {request.match_info['fault_id']!r}", "fault_id")
        await self._faults.heal(fault)
        return web.json_response(fault.json(active=False, truth=True))

    async def _state(self, _: web.Request) -> web.Response:
        runaways = await asyncio.gather(*(self._databases.value(r, queries.RUNAWAYS) for r in REGIONS))
        return web.json_response(
            {"regions": {r: self._region(r, count) for r, count in zip(REGIONS, runaways, strict=True)}}
        )

    def _region(self, region: str, runaways: int) -> dict[str, Any]:
        instances = {
            instance.name: {
                "pid": instance.pid,
                "restarts": instance.restarts,
                "address": instance.address,
                "running": instance.running,
            }
            for instance in self._registry.instances.values()
            if instance.region == region
        }
        return {
            **self._ports[region],
            "instances": instances,
            "runaways": runaways,
            "flags": {flag.key: flag.json() for flag in self._store.select(region)},
        }
