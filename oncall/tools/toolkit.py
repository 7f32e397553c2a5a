"""What one agent works with: its place on the roster, the shared telemetry, and its read credentials.

Every tool returns an Observation, and every Observation is made here, so that ids, digests and ranges mean the same
everywhere.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pydantic import SecretStr

from oncall.config import References, in_region
from oncall.model.agent import Agent
from oncall.model.observation import Observation
from oncall.model.topology import Topology
from oncall.probes import instances, postgres, valkey
from oncall.telemetry.deviation import Deviation, deviations
from oncall.telemetry.protocol import Telemetry
from oncall.telemetry.window import Window
from oncall.trust.canonical import canonical

# A recording is read whole: its points may be minutes apart, and its past days long.
RECORDING_LOOKBACK_S = 14 * 24 * 3600
# However long ago the alert claims to be: it came from outside.
MAX_WAIT = timedelta(hours=12)
_SIGNIFICANT = 6


class Credentials(Protocol):
    """The read side of the broker, as tools see it."""

    async def reveal(self, reference: str) -> SecretStr:
        """The secret behind an `op://` reference; raises Terminal or Retryable with the broker's code."""
        ...


def tidy(value: Any) -> Any:
    """A JSON value with its floats cut to six significant digits: enough to judge by, short enough to read."""
    if isinstance(value, float):
        return float(f"{value:.{_SIGNIFICANT}g}")
    if isinstance(value, Mapping):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    return value


def moment(seconds: float) -> str:
    """A time in seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def window_start(as_of: datetime, alert_at: datetime, lookback_s: float) -> datetime:
    """Where a window that ends at `as_of` begins: `lookback_s` before the alert, and at least as long before it as
    people took to answer, so that there is always more past than fault."""
    waited = min(max(as_of - alert_at, timedelta(0)), MAX_WAIT)
    return as_of - waited - max(waited, timedelta(seconds=lookback_s))


class Toolkit:
    """One agent's tools share this. Without `credentials` nothing live is called: the source is a recording.

    `uri` is the agent's SPIFFE id. The window that is read begins `lookback_s` before `alert_at` and ends at `as_of`
    (both UTC).
    """

    def __init__(
        self,
        agent: Agent,
        uri: str,
        as_of: datetime,
        alert_at: datetime,
        lookback_s: float,
        telemetry: Telemetry,
        instances_url: str | None,
        references: References,
        credentials: Credentials | None,
    ) -> None:
        self.agent = agent
        self.uri = uri
        self.as_of = as_of
        self.alert_at = alert_at
        self.lookback_s = lookback_s if credentials is not None else max(lookback_s, RECORDING_LOOKBACK_S)
        self.telemetry = telemetry
        self.instances_url = instances_url
        self.references = references
        self._credentials = credentials
        self._activity: postgres.Activity | None = None
        self._cache: valkey.CacheState | None = None
        self._instances: tuple[instances.RunningInstance, ...] | None = None

    @property
    def live(self) -> bool:
        """Whether live probes may be called."""
        return self._credentials is not None

    async def window(self) -> Window:
        """The wave's shared window. Raises TELEMETRY_UNAVAILABLE."""
        start = window_start(self.as_of, self.alert_at, self.lookback_s)
        return await self.telemetry.window(start, self.as_of)

    async def topology(self) -> Topology:
        """The estate as the telemetry's catalogue describes it. Raises TELEMETRY_UNAVAILABLE."""
        return await self.telemetry.topology()

    async def deviations(self) -> Mapping[str, Deviation]:
        """The agent's service's metrics against their past and peers."""
        window, topology = await self.window(), await self.topology()
        return deviations(window, self.agent.region, self.agent.service, topology.regions)

    async def reveal(self, reference: str) -> SecretStr:
        """A secret of this agent's grant. Only for live tools."""
        if self._credentials is None:
            raise AssertionError("a recording has no credentials: a live tool was called without asking `live`")
        return await self._credentials.reveal(reference)

    async def login(self, template: str) -> tuple[str, SecretStr, str]:
        """(username, password, server) of a login item; `{region}` in `template` is the agent's region."""
        base = in_region(template, self.agent.region)
        username = await self.reveal(f"{base}/username")
        password = await self.reveal(f"{base}/password")
        server = await self.reveal(f"{base}/server")
        return username.get_secret_value(), password, server.get_secret_value()

    async def activity(self) -> postgres.Activity:
        """One look at the service's database, shared by the agent's tools. Raises PROBE_FAILED."""
        if self._activity is None:
            username, password, server = await self.login(self.references.database_read)
            database = self.agent.service.replace("-", "_")
            self._activity = await postgres.look(self.agent.region, server, username, password, database)
        return self._activity

    async def cache(self) -> valkey.CacheState:
        """One look at the region's cache server, shared by the agent's tools. Raises PROBE_FAILED."""
        if self._cache is None:
            username, password, server = await self.login(self.references.cache_read)
            self._cache = await valkey.look(self.agent.region, server, username, password)
        return self._cache

    async def instances(self) -> tuple[instances.RunningInstance, ...]:
        """The service's running instances, shared by the agent's tools; empty without a registry.

        Raises PROBE_FAILED.
        """
        if self._instances is None:
            if self.instances_url is None:
                return ()
            credential = await self.reveal(self.references.instances_read)
            self._instances = await instances.running(
                self.instances_url, credential, self.agent.region, self.agent.service
            )
        return self._instances

    def ranged(
        self, tool: str, arguments: dict[str, Any], value: Any, window: Window, truncated: str | None = None
    ) -> Observation:
        """An observation of telemetry: running it again over the same range gives the same digest."""
        cut = "; ".join([*window.truncated, *([truncated] if truncated else [])]) or None
        return self._observation(tool, arguments, value, window.start, window.end, cut)

    def live_value(self, tool: str, arguments: dict[str, Any], value: Any, truncated: str | None = None) -> Observation:
        """An observation of a system as it is now; it cannot be repeated."""
        return self._observation(tool, arguments, value, None, None, truncated)

    def _observation(
        self,
        tool: str,
        arguments: dict[str, Any],
        value: Any,
        start: datetime | None,
        end: datetime | None,
        truncated: str | None,
    ) -> Observation:
        arguments = {"region": self.agent.region, "service": self.agent.service, **arguments}
        value = tidy(value)
        name = hashlib.sha256(canonical({"agent": self.uri, "tool": tool, "arguments": arguments})).hexdigest()
        return Observation(
            id=f"obs-{name[:12]}",
            agent=self.uri,
            tool=tool,
            arguments=arguments,
            range_from=start,
            range_to=end,
            taken_at=datetime.now(UTC),
            value=value,
            sha256=hashlib.sha256(canonical(value)).hexdigest(),
            reproducible=start is not None,
            truncated=truncated,
        )
