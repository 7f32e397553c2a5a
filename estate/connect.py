"""A double of 1Password Connect's REST API: two vaults, two tokens, each token sees its own vault only.

Shapes follow https://developer.1password.com/docs/connect/api-reference. Requests are counted in a file that names
the method, path and token, never a value.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from estate.flags import iso
from estate.http import Handler, bearer

_FILTER = re.compile(r'^(name|title) eq "([^"&#]*)"$')
_CONCEALED = frozenset({"password", "credential"})
_PURPOSES = {"username": "USERNAME", "password": "PASSWORD"}


def _id(*parts: str) -> str:
    """A 26-character id like 1Password's, the same at every start."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:26]


@dataclass(frozen=True, repr=False)
class Item:
    """One item: fields outside any section under "", the others under their section's label."""

    title: str
    category: str
    sections: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, repr=False)
class Vault:
    """One vault and the token that opens it."""

    name: str
    token_name: str
    token: str
    items: tuple[Item, ...]

    @property
    def id(self) -> str:
        """Its 26-character id."""
        return _id(self.name)


_VAULT = web.RequestKey("vault", Vault)


class Connect:
    """The server."""

    def __init__(self, vaults: tuple[Vault, ...], requests_log: Path, started: float) -> None:
        self._vaults = vaults
        self._log = requests_log
        self._started = iso(started)

    def app(self) -> web.Application:
        """The application to serve."""
        app = web.Application(middlewares=[self._guard], client_max_size=64 * 1024)
        app.router.add_get("/heartbeat", self._heartbeat)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/vaults", self._list_vaults)
        app.router.add_get("/v1/vaults/{vault}", self._get_vault)
        app.router.add_get("/v1/vaults/{vault}/items", self._list_items)
        app.router.add_get("/v1/vaults/{vault}/items/{item}", self._get_item)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        token = bearer(request).encode()
        mine = next((v for v in self._vaults if hmac.compare_digest(v.token.encode(), token)), None)
        if request.path.startswith("/v1/"):
            line = {
                "method": request.method,
                "path": request.path,
                "token": mine.token_name if mine else "unknown",
            }
            with self._log.open("a") as log:
                log.write(json.dumps(line) + "\n")
            if mine is None:
                return _problem(401, "Invalid token signature")
            request[_VAULT] = mine
        try:
            return await handler(request)
        except web.HTTPException as problem:
            return _problem(problem.status, problem.text or problem.reason)

    async def _heartbeat(self, _: web.Request) -> web.Response:
        return web.Response(text=".")

    async def _health(self, _: web.Request) -> web.Response:
        dependencies = [{"service": "sync", "status": "TOKEN_NEEDED"}, {"service": "sqlite", "status": "ACTIVE"}]
        return web.json_response({"name": "1Password Connect API", "version": "1.7.3", "dependencies": dependencies})

    async def _list_vaults(self, request: web.Request) -> web.Response:
        vault = request[_VAULT]
        wanted = _wanted(request, "name")
        return web.json_response([self._vault_json(vault)] if wanted in (None, vault.name) else [])

    async def _get_vault(self, request: web.Request) -> web.Response:
        return web.json_response(self._vault_json(self._opened(request)))

    async def _list_items(self, request: web.Request) -> web.Response:
        vault = self._opened(request)
        wanted = _wanted(request, "title")
        found = [item for item in vault.items if wanted in (None, item.title)]
        return web.json_response([self._summary(vault, item) for item in found])

    async def _get_item(self, request: web.Request) -> web.Response:
        vault = self._opened(request)
        wanted = request.match_info["item"]
        for item in vault.items:
            if _id(vault.name, item.title) == wanted:
                return web.json_response(self._full(vault, item))
        raise web.HTTPNotFound(text=f"item {wanted} not found in vault {vault.id}")

    def _opened(self, request: web.Request) -> Vault:
        vault = request[_VAULT]
        wanted = request.match_info["vault"]
        if wanted == vault.id:
            return vault
        if any(wanted == other.id for other in self._vaults):
            raise web.HTTPForbidden(text="vault is not in scope")
        raise web.HTTPNotFound(text=f"vault {wanted} not found")

    def _vault_json(self, vault: Vault) -> dict[str, Any]:
        return {
            "id": vault.id,
            "name": vault.name,
            "description": "",
            "attributeVersion": 1,
            "contentVersion": 1,
            "items": len(vault.items),
            "type": "USER_CREATED",
            "createdAt": self._started,
            "updatedAt": self._started,
        }

    def _summary(self, vault: Vault, item: Item) -> dict[str, Any]:
        return {
            "id": _id(vault.name, item.title),
            "title": item.title,
            "version": 1,
            "vault": {"id": vault.id, "name": vault.name},
            "category": item.category,
            "tags": [],
            "favorite": False,
            "lastEditedBy": _id("editor"),
            "createdAt": self._started,
            "updatedAt": self._started,
        }

    def _full(self, vault: Vault, item: Item) -> dict[str, Any]:
        sections = [{"id": _id(item.title, label), "label": label} for label in item.sections if label]
        fields = []
        for section, values in item.sections.items():
            for label, value in values.items():
                field: dict[str, Any] = {
                    "id": _id(item.title, section, label) if section else label,
                    "label": label,
                    "type": "CONCEALED" if label in _CONCEALED else "STRING",
                    "value": value,
                }
                if section:
                    field["section"] = {"id": _id(item.title, section), "label": section}
                elif label in _PURPOSES:
                    field["purpose"] = _PURPOSES[label]
                fields.append(field)
        return {**self._summary(vault, item), "sections": sections, "fields": fields}


def _wanted(request: web.Request, attribute: str) -> str | None:
    """The name a filter asks for; None without a filter. Raises 400 on any other filter."""
    text = request.query.get("filter")
    if text is None:
        return None
    match = _FILTER.match(text)
    if match is None or match[1] != attribute:
        raise web.HTTPBadRequest(text="Invalid filter query parameter")
    return match[2]


def _problem(status: int, message: str) -> web.Response:
    return web.json_response({"status": status, "message": message}, status=status)
