"""What a Valkey or Redis says about itself right now: INFO, the slow log's summary and the memory limit.

Reference: https://valkey.io/commands/info/. Keys and values are never read, and slow commands come back without
their arguments.
"""

from typing import Any

import redis.asyncio
import redis.exceptions
from pydantic import SecretStr
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.frozen import Frozen
from oncall.probes.deadline import DEADLINE_S, bounded, endpoint

_SLOW_COMMANDS = 10


class SlowCommand(Frozen):
    """One entry of the slow log: the command's name, when (seconds since the epoch), and how long it took."""

    command: str
    at: int
    took_us: int


class CacheState(Frozen):
    """One look at a cache server. Counters run since its start, `uptime_s` seconds ago; `max_memory_bytes` 0 is
    unlimited."""

    version: str
    uptime_s: int
    used_memory_bytes: int
    max_memory_bytes: int
    policy: str
    connected_clients: int
    blocked_clients: int
    hits: int
    misses: int
    evicted_keys: int
    expired_keys: int
    rejected_connections: int
    operations_per_s: int
    slow: tuple[SlowCommand, ...]


async def look(where: str, server: str, username: str, password: SecretStr) -> CacheState:
    """One look at the cache at `server` (`host:port`).

    Raises PROBE_FAILED: Terminal when it refuses the credential or a command, Retryable when it is away or too slow.
    """
    what = f"cache in {where}"
    host, port = endpoint(what, server)

    async def probe() -> CacheState:
        client = redis.asyncio.Redis(
            host=host,
            port=port,
            username=username,
            password=password.get_secret_value(),
            socket_timeout=DEADLINE_S,
            socket_connect_timeout=DEADLINE_S,
            # The library's own retries turn a wrong password into four seconds of silence.
            retry=Retry(NoBackoff(), 0),
            client_name="oncall-probe",
            decode_responses=True,
        )
        try:
            info: dict[str, Any] = await client.info("all")
            slow: list[dict[str, Any]] = await client.slowlog_get(_SLOW_COMMANDS)
        finally:
            await client.aclose()
        return _state(info, slow)

    try:
        return await bounded(what, probe)
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError):
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: refused the read credential") from None
    except redis.exceptions.ResponseError:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: refused a read-only command") from None
    except (redis.exceptions.RedisError, OSError):
        raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: not reachable") from None


def _state(info: dict[str, Any], slow: list[dict[str, Any]]) -> CacheState:
    def number(key: str) -> int:
        value = info.get(key, 0)
        return int(value) if isinstance(value, int | float) else 0

    return CacheState(
        version=str(info.get("valkey_version") or info.get("redis_version") or "")[:40],
        uptime_s=number("uptime_in_seconds"),
        used_memory_bytes=number("used_memory"),
        max_memory_bytes=number("maxmemory"),
        policy=str(info.get("maxmemory_policy", ""))[:40],
        connected_clients=number("connected_clients"),
        blocked_clients=number("blocked_clients"),
        hits=number("keyspace_hits"),
        misses=number("keyspace_misses"),
        evicted_keys=number("evicted_keys"),
        expired_keys=number("expired_keys"),
        rejected_connections=number("rejected_connections"),
        operations_per_s=number("instantaneous_ops_per_sec"),
        slow=tuple(
            SlowCommand(
                command=_name(entry.get("command")), at=int(entry["start_time"]), took_us=int(entry["duration"])
            )
            for entry in slow
        ),
    )


def _name(command: Any) -> str:
    text = command.decode(errors="replace") if isinstance(command, bytes) else str(command or "")
    return text.split(" ", 1)[0][:40]
