"""Fires at the points and the random moments of one incident, and remembers what was hit."""

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from oncall.cli.stack import ROLES
from tests.campaign.events import Event, Source
from tests.campaign.fleet import Fleet
from tests.campaign.points import SERVER, WORKERS, Point, by_a_request

RANDOM = "random"


@dataclass(frozen=True)
class Shot:
    """A kill at a moment, seconds after the incident was opened."""

    at_s: float
    victim: str
    by: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Strike:
    """A kill that happened: at which point, whom, when, and how many processes it hit.

    `ready` is how many of them had said that they were ready: a worker that was still starting dies just as well, but
    says less. `written` flags and `ended` backends are the effects that had been seen on the estate by then.
    """

    point: str
    victim: str
    at_s: float
    hit: int
    ready: int
    written: int = 0
    ended: int = 0


def victims(victim: str) -> tuple[str, ...]:
    """The processes that a victim's name means."""
    return ROLES if victim == WORKERS else (victim,)


class Strikes:
    """Armed with the points of one incident. `see` is called from any thread and kills in it, at once."""

    def __init__(self, points: Sequence[Point], fleet: Fleet) -> None:
        self._fleet = fleet
        self._armed = list(points)
        self._counts: Counter[str] = Counter()
        self._held: dict[tuple[Source, str], tuple[str, ...]] = {}
        self._timers: list[threading.Timer] = []
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._over = False
        self._written = self._ended = 0
        self.fired: list[Strike] = []

    def begin(self) -> None:
        """The incident is being opened now: what the random moments count from."""
        self._began = time.monotonic()

    def see(self, event: Event) -> None:
        """Fires every point that this event completes."""
        with self._lock:
            self._written += event.source is Source.FLAGS and by_a_request(event)
            self._ended += event.source is Source.POSTGRES
            if names := self._held.pop((event.source, event.kind), None):
                self._fleet.release(*names)
            for point in [point for point in self._armed if point.takes(event)]:
                self._counts[point.name] += 1
                if self._counts[point.name] == point.nth:
                    self._armed.remove(point)
                    self._aim(point)

    def waits_for(self, source: Source) -> bool:
        """Whether a point of that source is still to come."""
        return any(point.source is source for point in self._armed)

    async def fire_at(self, shots: Sequence[Shot]) -> None:
        """Fires at random moments, until they are used up or the task is cancelled."""
        for shot in sorted(shots, key=lambda shot: shot.at_s):
            await asyncio.sleep(max(0.0, self._began + shot.at_s - time.monotonic()))
            self._fire(RANDOM, shot.victim, shot.by)

    def disarm(self) -> None:
        """The incident is over: nothing fires any more, and whoever was kept down may run."""
        with self._lock:
            self._over = True
            for timer in self._timers:
                timer.cancel()
            for names in self._held.values():
                self._fleet.release(*names)

    def _aim(self, point: Point) -> None:
        if point.until is not None:
            self._held[point.source, point.until] = victims(point.victim)
        if not point.after_s:
            self._fire(point.name, point.victim, point.by, point.until is not None)
            return
        timer = threading.Timer(point.after_s, self._fire, (point.name, point.victim, point.by))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _fire(self, name: str, victim: str, number: signal.Signals, keep_down: bool = False) -> None:
        with self._lock:
            if self._over:
                return
            at_s = time.monotonic() - self._began
            ready = sum(self._fleet.is_ready(one) for one in victims(victim))
            hit = sum(self._fleet.kill(one, number, keep_down) for one in victims(victim))
            self.fired.append(Strike(name, victim, round(at_s, 3), hit, ready, self._written, self._ended))

    def hits(self, of_server: bool) -> int:
        """How many strikes hit a worker, or the server."""
        return sum(strike.hit > 0 for strike in self.fired if (strike.victim == SERVER) is of_server)
