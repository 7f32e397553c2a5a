"""What every telemetry backend answers; a live estate and a recording read alike through it."""

from datetime import datetime
from typing import Protocol

from oncall.model.topology import Topology
from oncall.telemetry.window import Window


class Telemetry(Protocol):
    """A source of metrics, logs and spans.

    All methods raise Terminal(TELEMETRY_UNAVAILABLE) when the source is not there or not readable as such, and
    Retryable(TELEMETRY_UNAVAILABLE) when trying again may help.
    """

    async def topology(self) -> Topology:
        """Regions, services and calls, as the source's catalogue has them."""
        ...

    async def window(self, start: datetime, end: datetime) -> Window:
        """Everything between two UTC times. Readers of the same range share one read."""
        ...

    async def metrics(self, start: datetime, end: datetime) -> Window:
        """The same window without logs and spans, which are most of what a read costs."""
        ...
