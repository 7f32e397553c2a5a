"""A server that speaks 1Password Connect's protocol over real HTTP, small enough to see through.

https://developer.1password.com/docs/connect/api-reference: lists with `filter=<attribute> eq "<value>"`, a bearer
token, errors as `{status, message}`. `misbehave` replaces every answer.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Items = dict[str, dict[str, dict[str, str]]]
"""Item title → section label ("" for none) → field label → value."""

TOKEN = "token-canary-5d41402abc4b2a76"


def an_id(name: str) -> str:
    """A 26-character id, as 1Password's are."""
    return hashlib.sha256(name.encode()).hexdigest()[:26]


class ConnectServer:
    """One vault per name; `paths` lists every request, in order."""

    def __init__(self, vaults: dict[str, Items]) -> None:
        self.vaults = vaults
        self.paths: list[str] = []
        self.delay_s = 0.0
        self.misbehave: Callable[[], Awaitable[web.StreamResponse]] | None = None
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ConnectServer"]:
        app = web.Application()
        app.router.add_get("/v1/{tail:.*}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        await asyncio.sleep(self.delay_s)
        if self.misbehave is not None:
            return await self.misbehave()
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _json(401, "Invalid token signature")
        parts = request.path.removeprefix("/v1/").split("/")
        wanted = request.query["filter"].split(" eq ")[1].strip('"') if "filter" in request.query else None
        if len(parts) == 1:
            names = [name for name in self.vaults if wanted in (None, name)]
            return web.json_response([{"id": an_id(name), "name": name} for name in names])
        vault = next((name for name in self.vaults if an_id(name) == parts[1]), None)
        if vault is None:
            return _json(404, "no such vault")
        titles = [title for title in self.vaults[vault] if wanted in (None, title)]
        if len(parts) == 3:
            return web.json_response([{"id": an_id(vault + title), "title": title} for title in titles])
        title = next((title for title in titles if an_id(vault + title) == parts[3]), None)
        return (
            web.json_response(_item(vault, title, self.vaults[vault][title])) if title else _json(404, "no such item")
        )


def _item(vault: str, title: str, sections: dict[str, dict[str, str]]) -> dict[str, Any]:
    fields = [
        {"id": an_id(section + label), "label": label, "type": "CONCEALED"}
        | ({"value": value} if value else {})
        | ({"section": {"id": an_id(section)}} if section else {})
        for section, values in sections.items()
        for label, value in values.items()
    ]
    listed = [{"id": an_id(section), "label": section} for section in sections if section]
    return {
        "id": an_id(vault + title),
        "title": title,
        "vault": {"id": an_id(vault)},
        "category": "DATABASE",
        "sections": listed,
        "fields": fields,
    }


def _json(status: int, message: str) -> web.Response:
    return web.json_response({"status": status, "message": message}, status=status)
