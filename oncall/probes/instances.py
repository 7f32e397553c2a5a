"""What the platform says about a service's running instances: processes, restarts, resources and feature flags.

`GET {url}/api/regions/{region}/services/{service}` with a bearer credential. Flag keys and names are untrusted text.
"""

import json
import ssl
from functools import lru_cache
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.frozen import Frozen
from oncall.probes.deadline import bounded

MAX_INSTANCES = 50
MAX_BYTES = 256 * 1024


class Flag(Frozen):
    """A feature flag as an instance holds it: on or off, at which version, since when (ISO 8601)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    value: bool
    version: int = Field(ge=0, lt=2**53)
    since: str = Field(max_length=40)


class RunningInstance(Frozen):
    """One instance. `cpu_percent` is of one core, lately; what the platform does not know is None.

    `flags_error` says why `flags` is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(max_length=120)
    address: str = Field(max_length=120)
    pid: int
    started_at: str = Field(max_length=40)
    restarts: int
    status: str = Field(max_length=40)
    cpu_seconds: float | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    flags: dict[str, Flag] | None = Field(default=None, max_length=200)
    flags_error: str | None = Field(default=None, max_length=200)


class _Answer(BaseModel):
    instances: tuple[RunningInstance, ...] = Field(max_length=MAX_INSTANCES)


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    # Loading the certificate store takes tens of milliseconds, which 150 agents must not each pay.
    return ssl.create_default_context()


async def running(url: str, credential: SecretStr, region: str, service: str) -> tuple[RunningInstance, ...]:
    """The instances of `service` in `region` that the registry at `url` knows; empty when it has none.

    Raises PROBE_FAILED: Terminal when the registry refuses or answers something else, Retryable when it is away.
    """
    what = f"instance registry, {service} in {region}"
    target = f"{url.rstrip('/')}/api/regions/{quote(region, safe='')}/services/{quote(service, safe='')}"

    async def probe() -> tuple[int, bytes]:
        verify = _trust() if target.startswith("https://") else False
        async with (
            httpx.AsyncClient(verify=verify, trust_env=False) as client,
            client.stream(
                "GET", target, headers={"Authorization": f"Bearer {credential.get_secret_value()}"}
            ) as response,
        ):
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    break
            return response.status_code, body

    try:
        status, body = await bounded(what, probe)
    except httpx.InvalidURL:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: its configured address is not a URL") from None
    except httpx.HTTPError:
        raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: not reachable") from None
    if status in (401, 403):
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: refused the read credential") from None
    if status >= 500:
        raise Retryable(ErrorCode.PROBE_FAILED, f"{what}: answered {status}") from None
    if status != 200:
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: answered {status}") from None
    try:
        return _Answer.model_validate(json.loads(body)).instances
    except (ValueError, ValidationError):
        raise Terminal(ErrorCode.PROBE_FAILED, f"{what}: did not answer in the registry's format") from None
