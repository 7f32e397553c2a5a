"""A short connection to PostgreSQL for a remedy: bounded in every step, its failures in our words.

asyncpg's own exceptions stop here, because they quote user names, statements and bound values.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
from pydantic import SecretStr

from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from oncall.probes.database_address import database_address

CONNECT_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0


class Database:
    """An open connection. Made by `open_database`."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """The rows of one statement with bound values.

        Raises Retryable(TARGET_UNREACHABLE) when the connection is lost or time is up (the statement may have run),
        Terminal(TARGET_REFUSED) when the database says no.
        """
        try:
            return await self._connection.fetch(statement, *values)
        except Exception as error:  # noqa: BLE001 - asyncpg, OSError and TimeoutError share no narrower base
            failure = _failure(error)
        raise failure from None

    async def count(self, statement: str, *values: object) -> int:
        """The one number that the statement returns; raises as `fetch` does."""
        return int((await self.fetch(statement, *values))[0][0])


@contextlib.asynccontextmanager
async def open_database(
    server: SecretStr, username: SecretStr, password: SecretStr, name: str
) -> AsyncIterator[Database]:
    """A connection to the database `name`. `server` is read as `database_address` does.

    Raises Terminal(BAD_REFERENCE | TARGET_REFUSED | NOT_FOUND) or Retryable(TARGET_UNREACHABLE).
    """
    try:
        host, port, ssl = database_address(server.get_secret_value())
    except ValueError:
        raise Terminal(ErrorCode.BAD_REFERENCE, "the database's server field is not host[:port]") from None
    failure: OncallError | None = None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                host=host,
                port=port,
                user=username.get_secret_value(),
                password=password.get_secret_value(),
                database=name,
                ssl=ssl,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=STATEMENT_TIMEOUT_S,
                statement_cache_size=0,
                server_settings={
                    "application_name": "oncall remediate",
                    "statement_timeout": str(int(STATEMENT_TIMEOUT_S * 1000)),
                },
            )
    except Exception as error:  # noqa: BLE001 - asyncpg, OSError and TimeoutError share no narrower base
        failure = _failure(error)
    if failure is not None:
        raise failure from None
    try:
        yield Database(connection)
    finally:
        try:
            await connection.close(timeout=CLOSE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            connection.terminate()


def _failure(error: Exception) -> OncallError:
    """The failure in our words. Only the SQLSTATE of the original survives."""
    if isinstance(error, OncallError):
        return error
    if not isinstance(error, asyncpg.PostgresError):
        if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            return Retryable(ErrorCode.TARGET_UNREACHABLE, "the database does not answer")
        return Terminal(ErrorCode.TARGET_REFUSED, f"the database call failed ({type(error).__name__})")
    state = error.sqlstate or ""
    match state[:2]:
        case "28":
            return Terminal(ErrorCode.TARGET_REFUSED, f"the database refused the credential ({state})")
        case "3D":
            return Terminal(ErrorCode.NOT_FOUND, "the server has no such database")
        case "42":
            return Terminal(ErrorCode.TARGET_REFUSED, f"the database refused the statement ({state})")
        # Connection lost, out of slots, cancelled or shutting down, internal: the same call may work later.
        case "08" | "53" | "57" | "58" | "XX" | "":
            return Retryable(ErrorCode.TARGET_UNREACHABLE, f"the database is not available ({state or 'no answer'})")
        case _:
            return Terminal(ErrorCode.TARGET_REFUSED, f"the database refused ({state})")
