"""Secrets from 1Password Connect, through its own SDK (https://developer.1password.com/docs/connect/)."""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from onepasswordconnectsdk.async_client import AsyncClient
from onepasswordconnectsdk.config import ClientConfig
from onepasswordconnectsdk.errors import OnePasswordConnectSDKError
from onepasswordconnectsdk.models import Item
from pydantic import SecretStr

from oncall.access.references import Reference
from oncall.model.errors import ErrorCode, Retryable, Terminal

REQUEST_TIMEOUT_S = 3.0
CACHE_S = 300.0

_ID = re.compile(r"[a-z0-9]{26}")

Found = TypeVar("Found")


@dataclass(frozen=True, repr=False)
class _Field:
    """One field of an item under every name that a reference may use: labels and ids."""

    sections: frozenset[str | None]
    names: frozenset[str]
    value: SecretStr | None


class Vault:
    """One Connect server seen through one token. Belongs to the event loop it is first used in.

    An item is fetched once and kept in memory for at most five minutes, so that its fields cost one lookup; callers
    who ask for it at the same time share that lookup. Failures are not kept. Nothing here can be printed into a secret.
    """

    def __init__(self, url: str, token: SecretStr, *, cache_s: float = CACHE_S) -> None:
        """Connects to nothing yet. `url` is the server's root, without `/v1`. Raises Terminal(BAD_CONFIG)."""
        self._where = url
        self._cache_s = cache_s
        self._requests = 0
        self._taken = 0
        self._flights: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL):
            valid = False
        if not valid:
            raise Terminal(ErrorCode.BAD_CONFIG, f"{url!r} is not the URL of a 1Password Connect server")
        secret = token.get_secret_value()
        if not secret or not secret.isascii() or not secret.isprintable():
            raise Terminal(ErrorCode.BAD_CONFIG, "the 1Password Connect token is empty or holds unprintable characters")
        self._client = AsyncClient(
            url,
            secret,
            ClientConfig(
                timeout=httpx.Timeout(REQUEST_TIMEOUT_S),
                # A proxy from the environment would be handed the token.
                trust_env=False,
                verify=ssl.create_default_context() if parts.scheme == "https" else False,
                event_hooks={"request": [self._count], "response": [self._judge]},
            ),
        )

    @property
    def requests(self) -> int:
        """How many HTTP requests were made since the start."""
        return self._requests

    def take_requests(self) -> int:
        """How many HTTP requests were made since this was last called: concurrent callers' shares add up exactly."""
        new = self._requests - self._taken
        self._taken = self._requests
        return new

    async def resolve(self, reference: Reference) -> SecretStr:
        """The value of one field.

        Raises Retryable(VAULT_UNREACHABLE) when the server is down, slow or broken; Terminal(VAULT_REFUSED) when it
        refuses the token; Terminal(ITEM_MISSING) naming the vault or the item; Terminal(FIELD_MISSING) naming the
        section or the field.
        """
        fields = await self._once(("item", reference.vault, reference.item), lambda: self._item(reference))
        in_section = [field for field in fields if reference.section in field.sections]
        if reference.section is not None and not in_section:
            raise Terminal(ErrorCode.FIELD_MISSING, f"{reference}: the item has no section {reference.section!r}")
        found = [field for field in in_section if reference.field in field.names]
        if len(found) > 1:
            raise Terminal(ErrorCode.FIELD_MISSING, f"{reference}: the name {reference.field!r} is ambiguous")
        if not found:
            raise Terminal(ErrorCode.FIELD_MISSING, f"{reference}: there is no field {reference.field!r}")
        if found[0].value is None:
            raise Terminal(ErrorCode.FIELD_MISSING, f"{reference}: the field {reference.field!r} is empty")
        return found[0].value

    def forget(self, reference: Reference) -> None:
        """Drops the item of `reference` from memory, as when the grant that opened it has ended."""
        self._drop(("item", reference.vault, reference.item))

    async def close(self) -> None:
        """Ends running lookups, drops what is cached and closes the connections."""
        flights = list(self._flights.values())
        self._flights.clear()
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        # The SDK's own `async with` fails: its __aexit__ takes no arguments.
        await self._client.session.aclose()

    async def _item(self, reference: Reference) -> tuple[_Field, ...]:
        vault_id = reference.vault
        if not _ID.fullmatch(reference.vault):
            vault_id = await self._once(("vault", reference.vault), lambda: self._vault_id(reference))
        return await self._ask(
            lambda: self._client.get_item(quote(reference.item, safe=""), vault_id),
            _fields,
            f"{reference}: there is no item {reference.item!r} in the vault {reference.vault!r}",
        )

    async def _vault_id(self, reference: Reference) -> str:
        return await self._ask(
            lambda: self._client.get_vault_by_title(quote(reference.vault, safe="")),
            _id,
            f"{reference}: there is no vault {reference.vault!r} that this token can see",
        )

    async def _ask(self, call: Callable[[], Awaitable[Any]], read: Callable[[Any], Found], missing: str) -> Found:
        try:
            async with asyncio.timeout(2 * REQUEST_TIMEOUT_S):
                return read(await call())
        except OnePasswordConnectSDKError:
            # `_judge` has taken every other status: what the SDK still reports is 400, 404, or not exactly one match.
            raise Terminal(ErrorCode.ITEM_MISSING, missing) from None
        except (httpx.HTTPError, OSError) as error:
            raise self._unreachable(f"cannot be reached ({type(error).__name__})") from None
        except (ValueError, TypeError, AttributeError, LookupError):
            raise self._unreachable("does not answer as 1Password Connect does") from None

    async def _once(self, key: tuple[str, ...], fetch: Callable[[], Awaitable[Found]]) -> Found:
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(self._fly(key, fetch))
            # Read here once, or a lookup whose callers were all cancelled would be reported as unhandled.
            flight.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._flights[key] = flight
        # Shielded: one caller's cancellation must not fail the others who wait for the same lookup.
        found: Found = await asyncio.shield(flight)
        return found

    async def _fly(self, key: tuple[str, ...], fetch: Callable[[], Awaitable[Found]]) -> Found:
        try:
            found = await fetch()
        except BaseException:
            self._drop(key)
            raise
        asyncio.get_running_loop().call_later(self._cache_s, self._drop, key, asyncio.current_task())
        return found

    def _drop(self, key: tuple[str, ...], only: object = None) -> None:
        if only is None or self._flights.get(key) is only:
            self._flights.pop(key, None)

    async def _count(self, _: httpx.Request) -> None:
        self._requests += 1

    async def _judge(self, response: httpx.Response) -> None:
        """Maps statuses where they arrive: the SDK's exceptions lose them."""
        status = response.status_code
        if status in (401, 403):
            raise Terminal(ErrorCode.VAULT_REFUSED, f"1Password Connect at {self._where} refuses the token ({status})")
        if not response.is_success and status not in (400, 404):
            text = response.headers.get("retry-after", "")
            raise self._unreachable(f"answered {status}", float(text) if text.isdecimal() else None)

    def _unreachable(self, why: str, retry_after_s: float | None = None) -> Retryable:
        return Retryable(ErrorCode.VAULT_UNREACHABLE, f"1Password Connect at {self._where} {why}", retry_after_s)


def _id(vault: Any) -> str:
    if not isinstance(vault.id, str) or not _ID.fullmatch(vault.id):
        raise ValueError
    return vault.id


def _fields(item: Item) -> tuple[_Field, ...]:
    # Kept as our own records: the SDK's models print every secret in their repr.
    if not item.id:
        raise ValueError
    labels = {section.id: section.label for section in item.sections or ()}
    fields = []
    for field in item.fields or ():
        section = field.section.id if field.section is not None else None
        sections = {section} if section is None else {section, labels.get(section) or section}
        names = {name for name in (field.label, field.id) if name}
        value = SecretStr(field.value) if field.value else None
        fields.append(_Field(frozenset(sections), frozenset(names), value))
    return tuple(fields)
