"""Contract: whatever a system does, a probe ends within its deadline with PROBE_FAILED, one line that names the system,
and no secret, in its message or anywhere in its exception."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr

from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from oncall.probes import deadline, instances, postgres, tcp, valkey
from oncall.probes.database_address import database_address

CANARY = SecretStr("canary-3f9a")
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts and says nothing until the other side leaves."""
    await reader.read()
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes at the first byte."""
    await reader.read(1)
    writer.close()


def saying(text: bytes) -> Answer:
    """Answers the first bytes with `text`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(text)
        await writer.drain()
        writer.close()

    return answer


PROBES: dict[str, Callable[[str], Awaitable[object]]] = {
    "postgres": lambda server: postgres.look("north", server, "reader", CANARY, "back"),
    "valkey": lambda server: valkey.look("north", server, "reader", CANARY),
    "instances": lambda server: instances.running(f"http://{server}", CANARY, "north", "back"),
}


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """Starts a TCP server with the given behaviour; returns its host:port."""
    servers: list[asyncio.Server] = []

    async def start(answer: Answer) -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


async def failure(probe: Awaitable[object]) -> OncallError:
    started = time.monotonic()
    with pytest.raises(OncallError) as failed:
        await probe
    assert failed.value.code is ErrorCode.PROBE_FAILED
    assert "\n" not in failed.value.message
    assert CANARY.get_secret_value() not in "".join(traceback.format_exception(failed.value))
    # Generous to a busy machine; without a deadline the hanging ones would take for ever.
    assert time.monotonic() - started < deadline.DEADLINE_S + 4
    return failed.value


@pytest.mark.parametrize("name", PROBES)
async def test_nobody_there(name: str) -> None:
    failed = await failure(PROBES[name]("127.0.0.1:1"))
    assert isinstance(failed, Retryable)
    assert "not reachable" in failed.message


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("answer", [hang, hang_up, saying(b"what?\r\n\r\n")], ids=["hangs", "hangs up", "babbles"])
async def test_whatever_a_server_does(name: str, answer: Answer, serve: Callable[[Answer], Awaitable[str]]) -> None:
    await failure(PROBES[name](await serve(answer)))


@pytest.mark.parametrize("name", ["postgres", "valkey"])
@pytest.mark.parametrize("server", ["", ":5432", "host:port", "host:99999"])
async def test_a_server_field_that_is_no_address(name: str, server: str) -> None:
    assert isinstance(await failure(PROBES[name](server)), Terminal)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("127.0.0.1:6000", ("127.0.0.1", 6000, "disable")),
        ("localhost", ("localhost", 5432, "disable")),
        ("[::1]:6000", ("::1", 6000, "disable")),
        ("db.internal:6000", ("db.internal", 6000, "require")),
        ("10.0.0.7", ("10.0.0.7", 5432, "require")),
        ("postgresql://db.internal?sslmode=verify-full", ("db.internal", 5432, "verify-full")),
        ("postgresql://10.0.0.7:6000?sslmode=disable", ("10.0.0.7", 6000, "disable")),
    ],
)
def test_a_password_leaves_the_host_only_under_tls_unless_its_item_says_otherwise(
    server: str, address: tuple[str, int, str]
) -> None:
    assert database_address(server) == address


async def test_a_server_that_declines_tls_never_hears_the_password(
    serve: Callable[[Answer], Awaitable[str]],
) -> None:
    heard = bytearray()

    async def decline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(64))
        writer.write(b"N")
        heard.extend(await reader.read(1024))

    address = await serve(decline)
    await failure(PROBES["postgres"](f"postgresql://{address}?sslmode=require"))
    assert heard
    assert CANARY.get_secret_value().encode() not in heard
    assert b"user" not in heard


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("401 Unauthorized", "{}", Terminal),
        ("404 Not Found", "{}", Terminal),
        ("503 Service Unavailable", "{}", Retryable),
        ("200 OK", "[]", Terminal),
        ("200 OK", "no json", Terminal),
        ("200 OK", '{"instances": [{"name": "x"}]}', Terminal),
        ("302 Found", "{}", Terminal),
    ],
)
async def test_what_the_registry_may_answer(
    status: str, body: str, kind: type[OncallError], serve: Callable[[Answer], Awaitable[str]]
) -> None:
    text = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\nLocation: http://x/\r\n\r\n{body}"
    assert isinstance(await failure(PROBES["instances"](await serve(saying(text.encode())))), kind)


async def test_a_refused_connect_is_counted_and_a_hanging_one_is_not_waited_for(
    serve: Callable[[Answer], Awaitable[str]],
) -> None:
    refused = await tcp.connects("127.0.0.1:1")
    assert (refused.attempts, refused.failed, refused.best_ms) == (tcp.ATTEMPTS, tcp.ATTEMPTS, None)
    answered = await tcp.connects(await serve(hang))
    assert answered.failed == 0
    assert answered.best_ms is not None
    assert 0 < answered.best_ms < 1000


def test_query_texts_lose_their_literals_but_keep_their_parameters() -> None:
    text = "SELECT *  FROM t\nWHERE secret = 'it''s 4711' AND id = 42 AND x = $1 AND y = $12"
    assert postgres.masked(text) == "SELECT * FROM t WHERE secret = ? AND id = ? AND x = $1 AND y = $12"
    assert len(postgres.masked("x" * 5000)) == postgres.TEXT_CHARS
