"""What the estate's HTTP servers share: bearer checks, JSON errors, and serving on a bound socket."""

from __future__ import annotations

import hmac
import json
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bearer(request: web.Request) -> str:
    """The bearer token of a request, empty if it has none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def authorized(request: web.Request, token: str) -> bool:
    """Whether the request carries this token; the comparison takes the same time for any guess."""
    return hmac.compare_digest(bearer(request).encode(), token.encode())


def error(status: int, code: str, message: str, field: str | None = None, **extra: Any) -> web.Response:
    """A JSON error in the shape of all our HTTP APIs."""
    body = {"code": code, "message": message, "field": field, **extra}
    return web.json_response({"error": body}, status=status)


async def json_object(request: web.Request) -> dict[str, Any] | None:
    """The request's JSON object, or None if its body is anything else."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def require(token: str, open_paths: frozenset[str] = frozenset()) -> Any:
    """A middleware that refuses requests without `token`, apart from some paths."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in open_paths and not authorized(request, token):
            return error(401, "unauthorized", "a bearer token of this API is needed")
        return await handler(request)

    return check


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns aiohttp's own errors (404, 405, 413) and crashes into JSON."""
    try:
        return await handler(request)
    except web.HTTPException as problem:
        if problem.status < 400:
            raise
        return error(problem.status, problem.reason.lower().replace(" ", "_"), f"{problem.reason}: {request.path}")
    except Exception:  # noqa: BLE001 - a server answers, whatever happened
        traceback.print_exc()
        return error(500, "internal", "the estate failed to answer: see its log")


async def serve(app: web.Application, listener: socket.socket) -> web.AppRunner:
    """Serves an application on a listening socket until its runner is cleaned up."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=256).start()
    return runner
