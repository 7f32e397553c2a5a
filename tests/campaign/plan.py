"""Which incident is shot at how: everything from one seed, so that a campaign can be run again."""

import random
import signal
from collections.abc import Sequence

from oncall.cli.stack import ROLES
from tests.campaign.incident import Fought, Plan
from tests.campaign.person import Manner
from tests.campaign.points import SERVER, WORKERS, Point
from tests.campaign.strikes import RANDOM, Shot

POINTS_PER_INCIDENT = 4
SHOTS_PER_INCIDENT = 8
SPREAD_S = 80.0
"""Random moments lie within what an incident under fire lasts at least; later ones find it closed and do not count."""

_SCENARIOS = ("cascading_failure",) * 5 + ("high_error_rate",)
_VICTIMS = (*ROLES, *ROLES, WORKERS)


class Planner:
    """Deals out what is still to be shot: every point until it has hit a process, then random kills and restarts.

    `kills` counts random moments that hit a worker that was ready, `restarts` those that hit the server at whatever
    point.
    """

    def __init__(self, seed: int, points: Sequence[Point], kills: int, restarts: int) -> None:
        self._seed = seed
        self._open = list(points)
        self._tries: dict[str, int] = {point.name: 0 for point in points}
        self.kills, self.restarts = kills, restarts

    @property
    def open_points(self) -> tuple[Point, ...]:
        """The points that have not hit anybody yet."""
        return tuple(self._open)

    @property
    def done(self) -> bool:
        """Whether everything was shot that should be."""
        return not self._open and self.kills <= 0 and self.restarts <= 0

    def next(self, number: int) -> Plan:
        """The plan of the `number`-th incident."""
        draw = random.Random(f"campaign:{self._seed}:{number}")
        # Every third one is noticed by a shift, which is shot at as well: at random only, for the points are of
        # incidents that are opened by hand.
        by_shift = not self._open or number % 3 == 2
        points = [] if by_shift else self._deal(draw)
        # What needs an effect on a database needs the fault that calls for one.
        needs_kill = any(point.phase == "kill" for point in points)
        scenario = _SCENARIOS[0] if needs_kill else draw.choice(_SCENARIOS)
        shots = [Shot(draw.uniform(0, SPREAD_S), draw.choice(_VICTIMS)) for _ in range(SHOTS_PER_INCIDENT)]
        if self.kills <= 0:
            shots = []
        if self.restarts > 0 and not any(point.victim == SERVER for point in points):
            number_ = draw.choice((signal.SIGKILL, signal.SIGTERM))
            shots.append(Shot(draw.uniform(0, SPREAD_S), SERVER, number_))
        manner = Manner(
            thinks_s=round(draw.uniform(0.3, 3.0), 2),
            refuses=None if points or draw.random() > 0.2 else "kill_queries",
            forged=draw.random() < 0.3,
        )
        return Plan(scenario, draw.randrange(2**16), tuple(points), tuple(shots), manner, by_shift)

    def note(self, fought: Fought) -> None:
        """Takes what was hit off the list."""
        for strike in fought.strikes:
            if not strike.hit:
                continue
            self.restarts -= strike.victim == SERVER
            self.kills -= strike.victim != SERVER and strike.point == RANDOM and strike.ready > 0
            self._open = [point for point in self._open if point.name != strike.point]

    def _deal(self, draw: random.Random) -> list[Point]:
        """One point per phase at most, those first that were tried least: a point may be out of reach for once."""
        waiting = self._open[:]
        draw.shuffle(waiting)
        waiting.sort(key=lambda point: self._tries[point.name])
        dealt: dict[str, Point] = {}
        for point in waiting:
            if len(dealt) < POINTS_PER_INCIDENT:
                dealt.setdefault(point.phase, point)
        for point in dealt.values():
            self._tries[point.name] += 1
        return list(dealt.values())
