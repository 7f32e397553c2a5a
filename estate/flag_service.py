"""The flag service: OFREP for evaluation, a management API behind the config service's credential.

OFREP: https://github.com/open-feature/protocol. Evaluation is open on loopback, as a sidecar's would be.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from estate.flags import Flag, FlagStore, KeyReused, UnknownFlag, VersionConflict
from estate.http import Handler, authorized, error, json_errors, json_object
from estate.topology import REGIONS, SERVICES, instance_name


class FlagService:
    """HTTP in front of a store."""

    def __init__(self, store: FlagStore, credential: str) -> None:
        self._store = store
        self._credential = credential

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application(middlewares=[json_errors, self._authorize], client_max_size=64 * 1024)
        app.router.add_post("/ofrep/v1/evaluate/flags", self._evaluate_all)
        app.router.add_post("/ofrep/v1/evaluate/flags/{key}", self._evaluate)
        app.router.add_get("/api/admin/flags", self._list)
        app.router.add_get("/api/admin/flags/{key}", self._get)
        app.router.add_put("/api/admin/flags/{key}", self._put)
        return app

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/api/") and not authorized(request, self._credential):
            return error(401, "unauthorized", "the config service's credential is needed")
        return await handler(request)

    async def _evaluate(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        context = await _context(request)
        if isinstance(context, web.Response):
            return context
        try:
            return web.json_response(self._store.get(key, context["region"]).evaluation())
        except UnknownFlag as unknown:
            body = {"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": str(unknown)}
            return web.json_response(body, status=404)

    async def _evaluate_all(self, request: web.Request) -> web.Response:
        context = await _context(request)
        if isinstance(context, web.Response):
            return context
        region, service = context["region"], context.get("service")
        flags = self._store.select(region, service)
        etag = self._store.etag(flags)
        presented = request.headers.get("If-None-Match")
        # Only the estate's own instances count as clients: a curious tool must not hold up a roll-out.
        if service in SERVICES and context.get("targetingKey") == instance_name(service):
            self._store.saw(instance_name(service), region, service, presented)
        if presented == etag:
            return web.Response(status=304, headers={"ETag": etag})
        body = {"flags": [flag.evaluation() for flag in flags], "metadata": {"region": region}}
        return web.json_response(body, headers={"ETag": etag})

    async def _list(self, request: web.Request) -> web.Response:
        region = request.query.get("region")
        if region is not None and region not in REGIONS:
            return error(404, "unknown_region", f"no region {region!r}", "region")
        return web.json_response({"flags": [flag.json() for flag in self._store.select(region)]})

    async def _get(self, request: web.Request) -> web.Response:
        found = self._find(request)
        return found if isinstance(found, web.Response) else web.json_response(self._state(found))

    async def _put(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        body = await json_object(request)
        if body is None:
            return error(400, "bad_json", "the body must be a JSON object")
        kinds = {"enabled": bool, "expected_version": int, "idempotency_key": str, "updated_by": str}
        for field, kind in kinds.items():
            # type(), not isinstance(): True would pass for an expected version of 1.
            if type(body.get(field)) is not kind or body[field] == "":
                return error(400, "bad_field", f"{field} must be a {kind.__name__}", field)
        try:
            flag, replayed = self._store.put(
                found.key,
                found.region,
                body["enabled"],
                body["expected_version"],
                body["idempotency_key"],
                body["updated_by"],
            )
        except VersionConflict as conflict:
            current = self._state(conflict.current)
            return error(409, "version_conflict", str(conflict), "expected_version", current=current)
        except KeyReused as reused:
            return error(409, "idempotency_key_reused", str(reused), "idempotency_key")
        return web.json_response({**self._state(flag), **({"replayed": True} if replayed else {})})

    def _find(self, request: web.Request) -> Flag | web.Response:
        region = request.query.get("region")
        if not region:
            return error(400, "bad_field", "the query needs ?region=", "region")
        try:
            return self._store.get(request.match_info["key"], region)
        except UnknownFlag as unknown:
            return error(404, "unknown_flag", str(unknown), "key")

    def _state(self, flag: Flag) -> dict[str, Any]:
        return {**flag.json(), "clients": self._store.clients(flag.key, flag.region)}


async def _context(request: web.Request) -> dict[str, Any] | web.Response:
    body = await json_object(request)
    if body is None:
        return _ofrep_error(request, "PARSE_ERROR", "the body must be a JSON object")
    context = body.get("context")
    if not isinstance(context, dict):
        return _ofrep_error(request, "INVALID_CONTEXT", "context must be an object")
    if not isinstance(context.get("targetingKey"), str):
        return _ofrep_error(request, "TARGETING_KEY_MISSING", "context.targetingKey must be a string")
    if context.get("region") not in REGIONS:
        return _ofrep_error(request, "INVALID_CONTEXT", "context.region must be a region of the estate")
    return context


def _ofrep_error(request: web.Request, code: str, details: str) -> web.Response:
    body = {"errorCode": code, "errorDetails": details}
    if key := request.match_info.get("key"):
        body["key"] = key
    return web.json_response(body, status=400)
