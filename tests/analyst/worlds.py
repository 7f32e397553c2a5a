"""Small synthetic estates for tests: two regions or three, a front that calls a middle that calls a back."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pydantic import SecretStr

from oncall.analyst.examine import examine
from oncall.analyst.synthesize import Analysis, synthesize
from oncall.config import References
from oncall.model.agent import Agent, Specialist
from oncall.model.coverage import Coverage
from oncall.model.finding import Finding
from oncall.model.topology import Call, Instance, Topology
from oncall.telemetry.window import LogLines, Place, Series, Window, series
from oncall.tools.toolkit import Toolkit

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
PERIOD_S = 2.0
POINTS = 60
REGIONS = ("north", "south")
SERVICES = ("front", "middle", "back")
TOPOLOGY = Topology(
    regions=REGIONS,
    services=tuple(Instance(region=region, service=service) for region in REGIONS for service in SERVICES),
    calls=tuple(
        Call(region=region, caller=caller, callee=callee)
        for region in REGIONS
        for caller, callee in (("front", "middle"), ("middle", "back"))
    ),
)
QUIET = {"error_rate(%)": 0.0, "latency_p95(ms)": 20.0, "pool_waiting(count)": 0.0, "cpu(%)": 4.0}


class Memory:
    """A `Telemetry` that holds one window; `reads` counts how often it was asked for."""

    def __init__(self, window: Window, topology: Topology = TOPOLOGY) -> None:
        self._window, self._topology, self.reads = window, topology, 0

    async def topology(self) -> Topology:
        """The topology it was given."""
        return self._topology

    async def window(self, start: datetime, end: datetime) -> Window:
        """The window it was given, whatever the range."""
        self.reads += 1
        return self._window

    async def metrics(self, start: datetime, end: datetime) -> Window:
        """The same."""
        return await self.window(start, end)


class NoCredentials:
    """Reveals an address that nobody listens on, so that every live probe fails at once."""

    async def reveal(self, reference: str) -> SecretStr:
        """`127.0.0.1:1` for servers, a canary for everything else."""
        return SecretStr("127.0.0.1:1" if reference.endswith("/server") else "canary-secret")


def points(values: Sequence[float]) -> Series:
    """A series that ends at NOW, one value per PERIOD_S."""
    end = NOW.timestamp()
    return series((end - PERIOD_S * (len(values) - 1 - index), value) for index, value in enumerate(values))


def step(before: float, after: float, recent: int = 5, jitter: float = 0.0, seed: int = 1) -> Series:
    """`before` with jitter, then `after` for the last `recent` points."""
    noise = np.random.default_rng(seed).normal(0, jitter, POINTS) if jitter else np.zeros(POINTS)
    level = np.where(np.arange(POINTS) >= POINTS - recent, after, before)
    return points([float(value) for value in level + noise])


def lines(count: int, template: str, seconds: float, level: str = "ERROR", traces: str = "") -> LogLines:
    """`count` equal lines spread over the last `seconds`; traces `<traces>0`, `<traces>1`, … unless empty."""
    times = NOW.timestamp() - np.linspace(seconds, 0.1, count)
    text = np.full(count, template, object)
    names = np.array([f"{traces}{index}" if traces else "" for index in range(count)], object)
    return LogLines(times, np.full(count, level, object), text, text, names)


def joined(*parts: LogLines) -> LogLines:
    """Several sets of lines as one, sorted by time."""
    order = np.argsort(np.concatenate([part.times for part in parts]), kind="stable")

    def column(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])[order]

    return LogLines(*(column(name) for name in ("times", "levels", "messages", "templates", "traces")))


def window(
    changes: dict[tuple[str, str, str], Series] | None = None, logs: dict[Place, LogLines] | None = None
) -> Window:
    """A quiet estate with some series replaced, and log lines where given."""
    metrics = {
        (region, service): {
            name: step(value, value, jitter=0.02 * value, seed=31 * index + len(name)) for name, value in QUIET.items()
        }
        for index, (region, service) in enumerate((r, s) for r in REGIONS for s in SERVICES)
    }
    for (region, service, metric), replaced in (changes or {}).items():
        metrics[region, service][metric] = replaced
    start = NOW - timedelta(seconds=PERIOD_S * POINTS)
    return Window(start=start, end=NOW, series=metrics, log_lines=logs or {}, has_logs=logs is not None)


def toolkit(source: Memory, agent: Agent, live: bool = False) -> Toolkit:
    """An agent's toolkit over `source`; live ones reach nothing."""
    uri = f"spiffe://test/{agent.region}/incident/i/{agent.specialist.value}/{agent.service}/attempt/1"
    url = "http://127.0.0.1:1" if live else None
    return Toolkit(agent, uri, NOW, NOW, 120, source, url, References(), NoCredentials() if live else None)


def roster(topology: Topology = TOPOLOGY) -> list[Agent]:
    """Every specialist on every service of every region."""
    return [
        Agent(specialist=specialist, service=place.service, region=place.region)
        for place in topology.services
        for specialist in Specialist
    ]


async def findings(seen: Window, live: bool = False) -> list[Finding]:
    """What the whole roster finds in a window."""
    source = Memory(seen)
    return [await examine(toolkit(source, agent, live)) for agent in roster()]


async def analysis(seen: Window, keep: Callable[[Finding], bool] = lambda _: True) -> Analysis:
    """The synthesis of the findings that `keep` keeps; the others count as failed."""
    every = await findings(seen)
    kept = [finding for finding in every if keep(finding)]
    coverage = Coverage(planned=len(every), completed=len(kept), failed=len(every) - len(kept))
    return synthesize(kept, TOPOLOGY, coverage, 0.8)
