"""Telemetry that shows one window after the other, and a worker's sources that hold nothing else."""

from datetime import datetime

from activities.sources import Sources
from oncall.config import Config
from oncall.model.errors import ErrorCode, Terminal
from oncall.telemetry.protocol import Telemetry
from oncall.telemetry.window import Window
from tests.analyst.worlds import Memory

AWAY = "the folder is away"


class Scripted(Memory):
    """Shows `looks` one after the other (None: it cannot be read), then the last one for ever; `asked` are the starts
    of the ranges that were asked for."""

    def __init__(self, *looks: Window | None) -> None:
        super().__init__(next(look for look in looks if look is not None))
        self._looks = looks
        self.asked: list[datetime] = []

    async def window(self, start: datetime, end: datetime) -> Window:
        """The next look, or the error of a folder that is away."""
        look = self._looks[min(self.reads, len(self._looks) - 1)]
        self.reads += 1
        self.asked.append(start)
        if look is None:
            raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, AWAY)
        return look


class Only(Sources):
    """One source of telemetry."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        super().__init__(config.sources)
        self._only = telemetry

    def telemetry(self, recording: str | None) -> Telemetry:
        """It."""
        return self._only
