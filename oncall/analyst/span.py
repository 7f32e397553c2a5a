"""The parts of a series that are judged, and since when it has been bad."""

import numpy as np
from numpy.typing import NDArray

from oncall.analyst.figures import period_s
from oncall.telemetry.window import Floats

# What is usual takes a past of this many times `for_s`: less may be a start, or the trouble itself.
MIN_PAST_SPANS = 5

Mask = NDArray[np.bool_]


class Span:
    """Masks of readings: `recent` are those of the last `for_s`, `newest` the end of them, `past` all before them.

    Each part has at least two readings where there are as many. A reading is about the time since the one before it.
    """

    def __init__(self, times: Floats, for_s: float) -> None:
        self._times = times
        self._for_s = for_s
        self._period = period_s(times)
        self.length_s = max(for_s, 2 * self._period)
        self.recent = self._last(self.length_s)
        self.newest = self._last(max(for_s / 3, 2 * self._period))
        self.past: Mask = ~self.recent

    def _last(self, seconds: float) -> Mask:
        if not len(self._times):
            return np.zeros(0, np.bool_)
        # Half a period of room: readings do not come to the millisecond.
        mask: Mask = self._times > self._times[-1] - seconds + self._period / 2
        return mask

    def usual(self, values: Floats) -> float | None:
        """The median of the past, which an earlier incident does not move far; None without enough of a past."""
        past = self._times[self.past]
        if len(past) < MIN_PAST_SPANS or self._times[-1] - past[0] < MIN_PAST_SPANS * self.length_s:
            return None
        return float(np.median(values[self.past]))

    def pieces(self) -> NDArray[np.int64]:
        """For each reading of the past the number of the piece that it is in; each piece is as long as `recent`."""
        ages: Floats = self._times[self.past].max(initial=0.0) - self._times[self.past]
        return np.floor_divide(ages, self.length_s or 1.0).astype(np.int64)

    def stretch(self, bad: Mask) -> tuple[float, bool] | None:
        """When the stretch of bad readings that reaches to the end began, in seconds since the epoch, and whether it
        has lasted `for_s`. None for one that has not lasted half of that, or is a single reading.

        Good readings break it only when they last half of `for_s`: with few requests some reading is good by chance.
        """
        marks = self._times[bad]
        gap = max(self._for_s / 2, 2 * self._period) + self._period / 2
        if not len(marks) or self._times[-1] - marks[-1] > gap:
            return None
        breaks = np.flatnonzero(np.diff(marks) > gap)
        first = float(marks[breaks[-1] + 1] if len(breaks) else marks[0])
        began = first - self._period
        lasted_s = float(self._times[-1]) - began
        if first == self._times[-1] or lasted_s < self._for_s / 2:
            return None
        return began, lasted_s >= self._for_s - self._period / 2
