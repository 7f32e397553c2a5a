"""The flag service's management API, as far as `disable_flag` needs it.

`GET {server}/api/admin/flags/{key}?region=R` answers `{"key", "region", "enabled", "version", "updated_at",
"updated_by", "clients": [{"instance", "region", "service", "version", "seen_at"}]}`; `PUT` with `{"enabled",
"expected_version", "idempotency_key", "updated_by"}` compares and sets. Bearer credential on both.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, StrictBool, StrictInt, ValidationError

from oncall.model.errors import ErrorCode, Retryable, Terminal

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 1 << 20
MAX_CLIENTS = 10_000
RECENT = timedelta(seconds=5)

Version = Annotated[StrictInt, Field(ge=0, le=2**53 - 1)]
"""A flag's version, which goes into the ledger: larger ones have no canonical JSON."""


class Ambiguous(Exception):
    """A write was sent and its fate is not known. `answered` is true when the service itself said that it failed."""

    def __init__(self, answered: bool) -> None:
        super().__init__("the flag service may or may not have taken the write")
        self.answered = answered


class Conflict(Exception):
    """The flag is at another version than the write expected."""


class FlagClient(BaseModel):
    """An instance that polls the flag, the version it holds and when it last asked."""

    model_config = ConfigDict(frozen=True)

    version: Version
    seen_at: AwareDatetime


class FlagState(BaseModel):
    """One flag in one region. `read_at` is the service's own time of the answer, so that clock skew does not count.

    The strings are the service's, as long as it likes: bound them before they are kept.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    region: str
    enabled: StrictBool
    version: Version
    updated_at: str
    updated_by: str
    clients: tuple[FlagClient, ...] = Field(default=(), max_length=MAX_CLIENTS)
    replayed: StrictBool = False
    read_at: AwareDatetime

    def recent(self) -> tuple[FlagClient, ...]:
        """The clients that have polled within the last 5 s."""
        return tuple(client for client in self.clients if client.seen_at >= self.read_at - RECENT)


class FlagApi:
    """One flag in one region, over one connection pool. Made by `open_flag`."""

    def __init__(self, client: httpx.AsyncClient, url: httpx.URL, key: str, region: str) -> None:
        self._client = client
        self._url = url
        self._key = key
        self._region = region

    async def get(self) -> FlagState:
        """The flag's state. Raises Terminal(NOT_FOUND | TARGET_REFUSED) or Retryable(TARGET_UNREACHABLE)."""
        try:
            status, headers, body = await self._exchange("GET", None)
        except (httpx.HTTPError, TimeoutError, _TooLong):
            raise _unreachable("does not answer") from None
        if status >= 500 or status == 429:
            raise _unreachable(f"answered {status}", _retry_after(headers)) from None
        self._refuse(status)
        state = self._parse(headers, body)
        if state is None:
            raise Terminal(ErrorCode.TARGET_REFUSED, "the flag service's answer is not this flag's state")
        return state

    async def put(self, enabled: bool, expected_version: int, idempotency_key: str, updated_by: str) -> FlagState:
        """Compare-and-set; a repeat with the same key answers with the first result and `replayed`.

        Raises Conflict, Ambiguous, Terminal(NOT_FOUND | TARGET_REFUSED), or Retryable(TARGET_UNREACHABLE) when
        nothing was sent.
        """
        write = {
            "enabled": enabled,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
            "updated_by": updated_by,
        }
        try:
            status, headers, body = await self._exchange("PUT", write)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise _unreachable("does not accept connections") from None
        except (httpx.HTTPError, TimeoutError, _TooLong):
            raise Ambiguous(answered=False) from None
        if status == 429:
            raise _unreachable("asks to wait", _retry_after(headers))
        if status == 409:
            raise Conflict
        if status >= 500:
            # A 502 or 504 comes from something in between that gave up waiting: the write may still go through.
            raise Ambiguous(answered=status == 500)
        self._refuse(status)
        state = self._parse(headers, body)
        if state is None:
            raise Ambiguous(answered=False)
        return state

    async def _exchange(self, method: str, body: dict[str, Any] | None) -> tuple[int, httpx.Headers, bytes]:
        # httpx bounds each read, not their sum: a server that drips bytes would hold the remedy for ever.
        async with asyncio.timeout(CONNECT_TIMEOUT_S + ANSWER_TIMEOUT_S):
            async with self._client.stream(method, self._url, json=body) as response:
                content = bytearray()
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _TooLong
                return response.status_code, response.headers, bytes(content)

    def _refuse(self, status: int) -> None:
        if status == 200:
            return
        if status == 404:
            raise Terminal(ErrorCode.NOT_FOUND, "the flag service knows no such flag in this region")
        if status in (401, 403):
            raise Terminal(ErrorCode.TARGET_REFUSED, f"the flag service refused the credential ({status})")
        raise Terminal(ErrorCode.TARGET_REFUSED, f"the flag service refused the call ({status})")

    def _parse(self, headers: httpx.Headers, body: bytes) -> FlagState | None:
        try:
            answer = json.loads(body)
            state = FlagState.model_validate({**answer, "read_at": _date(headers)})
        except (ValueError, TypeError, ValidationError, RecursionError):
            return None
        return state if (state.key, state.region) == (self._key, self._region) else None


class _TooLong(Exception):
    """The answer is longer than any flag's state."""


@contextlib.asynccontextmanager
async def open_flag(server: SecretStr, credential: SecretStr, key: str, region: str) -> AsyncIterator[FlagApi]:
    """The API of one flag. `server` is an http(s) URL, perhaps with a path.

    Raises Terminal(BAD_REFERENCE) for a server or a credential that cannot be used, Terminal(NOT_FOUND) for a name
    that no flag can have.
    """
    url = _flag_url(server.get_secret_value(), key, region)
    token = credential.get_secret_value()
    # Checked here, because httpx quotes an illegal header value, the credential, in its exception.
    if not token or not all("!" <= character <= "~" for character in token):
        raise Terminal(ErrorCode.BAD_REFERENCE, "the flag service's credential cannot be sent as a bearer token")
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        # The credential goes to the server of its own vault item: to no proxy and to nobody it redirects to.
        trust_env=False,
        follow_redirects=False,
    ) as client:
        yield FlagApi(client, url, key, region)


def _flag_url(server: str, key: str, region: str) -> httpx.URL:
    try:
        base = httpx.URL(server.strip().rstrip("/"))
    except (httpx.InvalidURL, ValueError):
        base = httpx.URL("")
    if base.scheme not in ("http", "https") or not base.host or base.userinfo or base.query or base.fragment:
        raise Terminal(ErrorCode.BAD_REFERENCE, "the flag service's server field is not a plain http(s) URL")
    # `.` and `..` survive percent-encoding as dot segments, which change the path.
    if key in ("", ".", ".."):
        raise Terminal(ErrorCode.NOT_FOUND, "no flag can have this name")
    path = f"{base.raw_path.decode('ascii').rstrip('/')}/api/admin/flags/{quote(key, safe='')}"
    raw = f"{path}?region={quote(region, safe='')}".encode("ascii")
    try:
        url = base.copy_with(raw_path=raw)
    except httpx.InvalidURL:
        raise Terminal(ErrorCode.NOT_FOUND, "this flag name cannot be put into a URL") from None
    if url.raw_path != raw or (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
        raise Terminal(ErrorCode.NOT_FOUND, "this flag name cannot be put into a URL")
    return url


def _date(headers: httpx.Headers) -> datetime:
    try:
        moment = parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _retry_after(headers: httpx.Headers) -> float | None:
    value = headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.isascii() and value.isdigit() else None


def _unreachable(what: str, retry_after_s: float | None = None) -> Retryable:
    return Retryable(ErrorCode.TARGET_UNREACHABLE, f"the flag service {what}", retry_after_s)
