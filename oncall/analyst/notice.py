"""What stands out to whoever is on call: figures that left their range, stayed out of it, and are out of it now.

Each is held against the service's own recent past and against the same service in the other regions, by rules that
someone woken at night can check by hand: shares of requests, medians, and for how long.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from oncall.analyst.figures import Failures, Taken, failures, latency, period_s, requests, taken
from oncall.config import ShiftConfig
from oncall.model.shift import Sighting, Trouble
from oncall.model.symptom import Symptom
from oncall.model.topology import Topology
from oncall.telemetry.deviation import stale
from oncall.telemetry.vocabulary import meaning
from oncall.telemetry.window import Floats, Series, Window

# A request or two that fail are no alarm, whatever share of a quiet service's traffic they are.
MIN_ERRORS = 3
# The slow ones of fewer requests are chance.
MIN_REQUESTS = 10
# What is usual takes a past of this many times `for_s`: less may be a start, or the trouble itself.
MIN_SPANS = 5
# How far a share must lie above the usual one, in standard deviations of as many requests.
_BY_CHANCE = 4.0
# Segments appear two to three seconds after what they hold; much later means that nobody records any more.
_BEHIND_S = 20.0
_MILLISECONDS = {"s": 0.001, "us": 1000.0}

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Noticed:
    """What stood out, how many services could be seen, and which could not: `region/service`."""

    sightings: tuple[Sighting, ...]
    services: int
    blind: tuple[str, ...]


def notice(window: Window, topology: Topology, thresholds: ShiftConfig, as_of: datetime) -> Noticed:
    """Everything that has been out of range for `thresholds.for_s`, in a window that was asked for up to `as_of`.

    Errors need an absolute level and, where there is a past, one clearly above the usual; latency needs a past,
    traffic, and peers that do not slow down alike; saturation a past. A service is blind when none of its metrics has
    a reading of late: nothing is said of it then.
    """
    behind = (as_of - window.end).total_seconds() > _BEHIND_S
    sightings: list[Sighting] = []
    blind: list[str] = []
    for place in topology.services:
        metrics = window.metrics(place.region, place.service)
        end_s = window.end.timestamp()
        fresh = {} if behind else {metric: one for metric, one in metrics.items() if not stale(one, end_s)}
        if not fresh:
            blind.append(f"{place.region}/{place.service}")
            continue
        peers = [window.metrics(other, place.service) for other in topology.regions if other != place.region]
        sightings += _Look(place.region, place.service, fresh, peers, thresholds).sightings()
    return Noticed(tuple(sightings), len(topology.services) - len(blind), tuple(blind))


@dataclass(frozen=True)
class _Look:
    """One service, as it stands."""

    region: str
    service: str
    metrics: Mapping[str, Series]
    peers: Sequence[Mapping[str, Series]]
    thresholds: ShiftConfig

    def sightings(self) -> list[Sighting]:
        """What of it is out of range."""
        share, slow = failures(self.metrics), latency(self.metrics)
        found = [
            self._failing(share) if share is not None else None,
            self._slow(*slow) if slow is not None else None,
            *(self._full(one) for one in taken(self.metrics)),
        ]
        return [sighting for sighting in found if sighting is not None]

    def _failing(self, share: Failures) -> Sighting | None:
        span = _Span(share.times, self.thresholds.for_s)
        weights = share.weights
        among = float(weights[span.recent].sum())
        errors = float((share.percent * weights)[span.recent].sum()) / 100.0
        if share.requests is not None and errors < MIN_ERRORS - 0.5:
            return None
        limit = self._error_limit(_usual_share(share, span), among if share.requests is not None else None)
        now, newest = _level(share, span.recent), _level(share, span.newest)
        since = span.since(share.percent >= limit) if min(now, newest) >= limit else None
        if since is None:
            return None
        return self._sighting(
            Trouble.ERRORS,
            share.metric,
            share.in_unit(now, span.recent),
            share.in_unit(limit, span.recent),
            since,
            error_percent=now,
        )

    def _error_limit(self, usual: float, among: float | None) -> float:
        """The share, in percent, above which failures are news for a service of which `usual` percent fail.

        What is bad enough to be critical never becomes usual, however long it lasts.
        """
        share = min(usual, self.thresholds.critical_error_percent) / 100.0
        twice_the_odds = 2 * share / (1 + share)
        chance = _BY_CHANCE * (share * (1 - share) / among) ** 0.5 if among else 0.0
        return max(self.thresholds.error_percent, 100.0 * twice_the_odds, 100.0 * (share + chance))

    def _slow(self, metric: str, series: Series) -> Sighting | None:
        span = _Span(series.times, self.thresholds.for_s)
        usual = span.usual(series.values)
        asked = requests(self.metrics)
        if usual is None or (asked is not None and _Span(asked.times, span.for_s).total(asked.values) < MIN_REQUESTS):
            return None
        base = usual * max(1.0, self._slowdown_of_peers(metric))
        more = self.thresholds.latency_ms * _MILLISECONDS.get(meaning(metric).unit, 1.0)
        limit = max(base * self.thresholds.latency_ratio, base + more)
        return self._out_of(Trouble.LATENCY, metric, series, limit, span)

    def _slowdown_of_peers(self, metric: str) -> float:
        """How many times slower than usual most other regions are: that much is the host's doing, or the hour's."""
        found = []
        for peer in (metrics[metric] for metrics in self.peers if metric in metrics):
            span = _Span(peer.times, self.thresholds.for_s)
            usual = span.usual(peer.values)
            if usual:
                found.append(float(np.median(peer.values[span.recent])) / usual)
        return _of_most(found)

    def _full(self, one: Taken) -> Sighting | None:
        span = _Span(one.series.times, self.thresholds.for_s)
        limit = one.size * self.thresholds.saturation_percent / 100.0
        if span.usual(one.series.values) is None:
            return None
        if "cpu" in meaning(one.metric).taken.split():
            # Processors that are short everywhere are the host's, and nothing of this service's making.
            levels = [self._recent(metrics[one.metric]) for metrics in self.peers if one.metric in metrics]
            if _of_most(levels) >= limit:
                return None
        return self._out_of(Trouble.SATURATION, one.metric, one.series, limit, span)

    def _recent(self, series: Series) -> float:
        return (
            float(np.median(series.values[_Span(series.times, self.thresholds.for_s).recent])) if len(series) else 0.0
        )

    def _out_of(self, trouble: Trouble, metric: str, series: Series, limit: float, span: "_Span") -> Sighting | None:
        now, newest = float(np.median(series.values[span.recent])), float(np.median(series.values[span.newest]))
        since = span.since(series.values >= limit) if min(now, newest) >= limit else None
        return None if since is None else self._sighting(trouble, metric, now, limit, since)

    def _sighting(
        self,
        trouble: Trouble,
        metric: str,
        now: float,
        limit: float,
        since: float,
        error_percent: float | None = None,
    ) -> Sighting:
        # Recovery takes what equals a threshold for well, and a figure that reaches its limit is out of range.
        within = math.nextafter(limit, -math.inf if now >= limit else math.inf)
        symptom = Symptom(region=self.region, service=self.service, metric=metric, before=now, threshold=within)
        return Sighting(
            trouble=trouble, symptom=symptom, since=datetime.fromtimestamp(since, UTC), error_percent=error_percent
        )


class _Span:
    """The parts of a series that are judged: `recent` is its last `for_s`, `newest` the end of that, `past` what is
    before it. Each a mask of the readings. A reading is about the time since the one before."""

    def __init__(self, times: Floats, for_s: float) -> None:
        self.times, self.for_s = times, for_s
        self.period = period_s(times)
        self.recent = self._last(max(for_s, 2 * self.period))
        self.newest = self._last(max(for_s / 3, 2 * self.period))
        self.past: Mask = ~self.recent

    def _last(self, seconds: float) -> Mask:
        if not len(self.times):
            return np.zeros(0, np.bool_)
        # Half a period of room: readings do not come to the millisecond.
        mask: Mask = self.times > self.times[-1] - seconds + self.period / 2
        return mask

    def total(self, values: Floats) -> float:
        """The sum of the recent values."""
        return float(values[self.recent].sum())

    def usual(self, values: Floats) -> float | None:
        """The median of the past, which an earlier incident does not move far; None without enough of a past."""
        past = self.times[self.past]
        if len(past) < MIN_SPANS or self.times[-1] - past[0] < MIN_SPANS * self.for_s:
            return None
        return float(np.median(values[self.past]))

    def since(self, bad: Mask) -> float | None:
        """When the stretch of bad readings that reaches to the end began, in seconds since the epoch.

        None when it has not lasted `for_s`. Good readings break it only when they last half of that: with few requests
        some reading is good by chance.
        """
        marks = self.times[bad]
        gap = max(self.for_s / 2, 2 * self.period) + self.period / 2
        if not len(marks) or self.times[-1] - marks[-1] > gap:
            return None
        breaks = np.flatnonzero(np.diff(marks) > gap)
        first = float(marks[breaks[-1] + 1] if len(breaks) else marks[0])
        began = first - self.period
        lasted = float(self.times[-1]) - began
        return began if first < self.times[-1] and lasted >= self.for_s - self.period / 2 else None


def _level(share: Failures, part: Mask) -> float:
    """The failing share of that part's requests, in percent."""
    weights = share.weights[part]
    total = float(weights.sum())
    return float((share.percent[part] * weights).sum()) / total if total > 0 else 0.0


def _usual_share(share: Failures, span: _Span) -> float:
    """The median share over pieces of the past that are as long as the recent one, in percent; 0 without a past.

    A median over single readings would not do: of a handful of requests mostly none fails.
    """
    past = span.times[span.past]
    if not len(past):
        return 0.0
    pieces = ((past[-1] - past) // max(span.for_s, 2 * span.period)).astype(np.int64)
    weights = share.weights[span.past]
    among = np.bincount(pieces, weights)
    failed = np.bincount(pieces, weights * share.percent[span.past])
    known = among > 0
    if np.count_nonzero(known) < MIN_SPANS:
        return 0.0
    return float(np.median(failed[known] / among[known]))


def _of_most(values: Sequence[float]) -> float:
    """The lower median: at least half of the values are as high. 0 without any."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0
