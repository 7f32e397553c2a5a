"""Contract: `Vault.resolve` gives the field's value, asks for an item once however many want it, and names every
failure with its own code and without a secret. The SDK and HTTP are real.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from pydantic import SecretStr

from oncall.access.connect import Vault
from oncall.access.references import Reference
from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from tests.access.connect_server import TOKEN, ConnectServer, an_id

PASSWORD = "password-canary-7b52009b64fd0a2a"
DB = "op://Infrastructure/prod-db-readonly/us-east-1"


@pytest.fixture
async def server() -> AsyncIterator[ConnectServer]:
    regions = {
        region: {"username": "oncall_ro", "password": f"{PASSWORD}-{region}", "server": "127.0.0.1:5432"}
        for region in ("us-east-1", "eu-west-1")
    }
    plain = {"": {"credential": "top", "empty": ""}, "s": {"credential": "below"}}
    infrastructure = {"prod-db-readonly": regions, "aws": plain, "a & b #1": plain}
    async with ConnectServer({"Infrastructure": infrastructure, "R&D": {"x": plain}}).running() as running:
        yield running


@pytest.fixture
async def vault(server: ConnectServer) -> AsyncIterator[Vault]:
    vault = Vault(server.url, SecretStr(TOKEN))
    yield vault
    await vault.close()


async def failure(vault: Vault, reference: str) -> OncallError:
    with pytest.raises(OncallError) as caught:
        await vault.resolve(Reference.parse(reference))
    assert TOKEN not in repr(caught.value)
    assert PASSWORD not in repr(caught.value)
    return caught.value


async def value(vault: Vault, reference: str) -> str:
    return (await vault.resolve(Reference.parse(reference))).get_secret_value()


async def test_sections_fields_and_ids_resolve(vault: Vault) -> None:
    assert await value(vault, f"{DB}/password") == f"{PASSWORD}-us-east-1"
    assert await value(vault, DB.replace("us-east-1", "eu-west-1") + "/password") == f"{PASSWORD}-eu-west-1"
    assert await value(vault, "op://Infrastructure/aws/credential") == "top"
    assert await value(vault, "op://Infrastructure/aws/s/credential") == "below"
    by_id = f"op://{an_id('Infrastructure')}/{an_id('Infrastructureaws')}/{an_id('s')}/credential"
    assert await value(vault, by_id) == "below"


async def test_names_that_the_sdk_does_not_escape_resolve(vault: Vault) -> None:
    assert await value(vault, "op://Infrastructure/a & b #1/credential") == "top"
    assert await value(vault, "op://R&D/x/credential") == "top"


async def test_fifty_concurrent_resolves_of_an_item_cost_one_lookup(vault: Vault, server: ConnectServer) -> None:
    server.delay_s = 0.05
    names = ["username", "password", "server", "username", "password"] * 10
    values = await asyncio.gather(*(value(vault, f"{DB}/{name}") for name in names))
    assert len(set(values)) == 3
    assert vault.requests == len(server.paths) == 3
    await value(vault, "op://Infrastructure/aws/credential")
    assert vault.requests == 5, "the vault's id is already known"
    assert (vault.take_requests(), vault.take_requests()) == (5, 0)


async def test_a_cancelled_caller_does_not_fail_the_others(vault: Vault, server: ConnectServer) -> None:
    server.delay_s = 0.05
    first = asyncio.create_task(value(vault, f"{DB}/password"))
    second = asyncio.create_task(value(vault, f"{DB}/password"))
    await asyncio.sleep(0.02)
    first.cancel()
    assert await second == f"{PASSWORD}-us-east-1"
    assert vault.requests == 3


async def test_the_cache_is_bounded_in_time_and_can_be_dropped(server: ConnectServer) -> None:
    vault = Vault(server.url, SecretStr(TOKEN), cache_s=0.1)
    await value(vault, f"{DB}/password")
    server.vaults["Infrastructure"]["prod-db-readonly"]["us-east-1"]["password"] = "rotated"
    assert await value(vault, f"{DB}/password") == f"{PASSWORD}-us-east-1"
    await asyncio.sleep(0.15)
    assert await value(vault, f"{DB}/password") == "rotated"
    assert len(vault._flights) == 2
    await asyncio.sleep(0.15)
    assert vault._flights == {}, "a secret nobody asks for any more must leave memory too"
    await value(vault, f"{DB}/password")
    server.vaults["Infrastructure"]["prod-db-readonly"]["us-east-1"]["password"] = "again"
    vault.forget(Reference.parse(f"{DB}/username"))
    assert await value(vault, f"{DB}/password") == "again"
    await vault.close()


@pytest.mark.parametrize(
    ("reference", "code", "names"),
    [
        ("op://Nowhere/x/f", ErrorCode.ITEM_MISSING, "vault 'Nowhere'"),
        ("op://Infrastructure/nothing/f", ErrorCode.ITEM_MISSING, "item 'nothing'"),
        ("op://Infrastructure/aws/moon/credential", ErrorCode.FIELD_MISSING, "section 'moon'"),
        ("op://Infrastructure/aws/s/user", ErrorCode.FIELD_MISSING, "field 'user'"),
        ("op://Infrastructure/aws/empty", ErrorCode.FIELD_MISSING, "'empty'"),
        (f"{DB}/credential", ErrorCode.FIELD_MISSING, "field 'credential'"),
        ("op://Infrastructure/prod-db-readonly/password", ErrorCode.FIELD_MISSING, "field 'password'"),
    ],
)
async def test_what_is_missing_is_named(vault: Vault, reference: str, code: ErrorCode, names: str) -> None:
    error = await failure(vault, reference)
    assert isinstance(error, Terminal)
    assert error.code is code
    assert names in error.message
    assert reference in error.message


async def test_a_missing_item_is_found_once_it_is_there(vault: Vault, server: ConnectServer) -> None:
    await failure(vault, "op://Infrastructure/new/f")
    server.vaults["Infrastructure"]["new"] = {"": {"f": "v"}}
    assert await value(vault, "op://Infrastructure/new/f") == "v"


async def test_a_wrong_token_is_refused(server: ConnectServer) -> None:
    vault = Vault(server.url, SecretStr("wrong"))
    error = await failure(vault, f"{DB}/password")
    assert isinstance(error, Terminal)
    assert error.code is ErrorCode.VAULT_REFUSED
    await vault.close()


async def test_a_server_that_is_down_is_worth_another_try() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vault = Vault(f"http://127.0.0.1:{port}", SecretStr(TOKEN))
    error = await failure(vault, f"{DB}/password")
    assert isinstance(error, Retryable)
    assert error.code is ErrorCode.VAULT_UNREACHABLE
    await vault.close()


async def _json(body: object, status: int = 200, **headers: str) -> web.StreamResponse:
    return web.json_response(body, status=status, headers=headers)


@pytest.mark.parametrize("status", [302, 429, 500, 503])
async def test_a_broken_server_is_worth_another_try(vault: Vault, server: ConnectServer, status: int) -> None:
    server.misbehave = lambda: _json({"status": status, "message": "no"}, status, **{"Retry-After": "7"})
    error = await failure(vault, f"{DB}/password")
    assert isinstance(error, Retryable)
    assert (error.code, error.retry_after_s) == (ErrorCode.VAULT_UNREACHABLE, 7.0)
    server.misbehave = None
    assert await value(vault, f"{DB}/password"), "a failure must not be remembered"


@pytest.mark.parametrize("body", [None, 1, "x", [1], {"a": 1}, [None], [{}], [[]]])
async def test_a_server_that_speaks_nonsense_is_worth_another_try(
    vault: Vault, server: ConnectServer, body: object
) -> None:
    server.misbehave = lambda: _json(body)
    assert (await failure(vault, f"{DB}/password")).code in (ErrorCode.VAULT_UNREACHABLE, ErrorCode.ITEM_MISSING)

    async def page() -> web.StreamResponse:
        return web.Response(text=f"<html>{PASSWORD}</html>", content_type="text/html", status=404)

    server.misbehave = page
    assert (await failure(vault, f"{DB}/password")).code is ErrorCode.VAULT_UNREACHABLE


async def test_a_silent_server_costs_seconds_not_minutes(vault: Vault, server: ConnectServer) -> None:
    server.delay_s = 30
    started = time.monotonic()
    assert (await failure(vault, f"{DB}/password")).code is ErrorCode.VAULT_UNREACHABLE
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://[", "http://"])
def test_a_url_that_is_none_is_a_configuration_error(url: str) -> None:
    with pytest.raises(Terminal) as caught:
        Vault(url, SecretStr(TOKEN))
    assert caught.value.code is ErrorCode.BAD_CONFIG


@pytest.mark.parametrize("token", ["", "a\nb", "ä"])
def test_a_token_that_is_none_is_a_configuration_error(token: str) -> None:
    with pytest.raises(Terminal) as caught:
        Vault("http://127.0.0.1:1", SecretStr(token))
    assert caught.value.code is ErrorCode.BAD_CONFIG


async def test_nothing_prints_a_secret(vault: Vault) -> None:
    resolved = await vault.resolve(Reference.parse(f"{DB}/password"))
    await value(vault, f"{DB}/username")
    printed = repr(vault) + repr(vars(vault)) + str(vault._client) + repr(vault._flights) + repr(resolved)
    for flight in vault._flights.values():
        printed += repr(flight.result())
    assert PASSWORD not in printed
    assert TOKEN not in printed
