"""One range of telemetry for the whole estate, read once and then only sliced in memory.

Every array is indexed by (region, service) and sorted by time, so that an agent's slice costs a dictionary lookup.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Strings = NDArray[np.object_]
Place = tuple[str, str]
Derived = TypeVar("Derived")


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one service: `times` in seconds since the epoch, ascending; `values` finite, same length."""

    times: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class LogLines:
    """The log lines of one service, equally long columns.

    `levels` are upper case, "" where the source has none. `messages` are clipped, untrusted text; `templates` are
    messages with their numbers and ids masked, so that equal patterns compare equal. `traces` is "" where unknown.
    """

    times: Floats
    levels: Strings
    messages: Strings
    templates: Strings
    traces: Strings

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class Spans:
    """The server spans of one service. `callers` is the service of the parent span, "" for a root or an unknown one."""

    times: Floats
    durations_ms: Floats
    operations: Strings
    callers: Strings

    def __len__(self) -> int:
        return len(self.times)


NO_LOGS = LogLines(np.empty(0), np.empty(0, object), np.empty(0, object), np.empty(0, object), np.empty(0, object))
NO_SPANS = Spans(np.empty(0), np.empty(0), np.empty(0, object), np.empty(0, object))


def series(points: Iterable[tuple[float, float]]) -> Series:
    """A series from (seconds since the epoch, value) pairs in any order; values that are not finite are dropped."""
    pairs = np.array(sorted(points), dtype=np.float64).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return Series(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))


@dataclass(frozen=True)
class Window:
    """Metrics, logs and spans of all services with `start` <= time <= `end` (UTC).

    `end` is the time up to which the source was complete, at most the end that was asked for: the same window read
    again holds the same rows. `has_logs` and `has_spans` say whether the source keeps any, so that an empty slice is
    not mistaken for silence. `truncated` names each bound that cut rows; the newest rows are kept.
    """

    start: datetime
    end: datetime
    series: Mapping[Place, Mapping[str, Series]]
    log_lines: Mapping[Place, LogLines] = field(default_factory=dict)
    span_rows: Mapping[Place, Spans] = field(default_factory=dict)
    has_logs: bool = False
    has_spans: bool = False
    truncated: tuple[str, ...] = ()
    _derived: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    def metrics(self, region: str, service: str) -> Mapping[str, Series]:
        """The service's metrics by name; empty when it has none."""
        return self.series.get((region, service), {})

    def logs(self, region: str, service: str) -> LogLines:
        """The service's log lines; empty when it wrote none."""
        return self.log_lines.get((region, service), NO_LOGS)

    def spans(self, region: str, service: str) -> Spans:
        """The service's server spans; empty when it has none."""
        return self.span_rows.get((region, service), NO_SPANS)

    def derived(self, key: object, compute: Callable[[], Derived]) -> Derived:
        """`compute()`, run once per window and key: what one agent worked out, the next of the wave reuses."""
        if key not in self._derived:
            self._derived[key] = compute()
        return cast(Derived, self._derived[key])
