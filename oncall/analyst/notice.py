"""What stands out to whoever is on call: figures that left their range, stayed out of it, and are out of it now.

Each is held against the service's own recent past and against the same service in the other regions, by rules that
someone woken at night can check by hand: shares of requests, medians, and for how long.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from oncall.analyst.figures import Failures, Taken, failures, latency, requests, taken
from oncall.analyst.span import MIN_PAST_SPANS, Mask, Span
from oncall.config import ShiftConfig
from oncall.model.shift import Sighting, Trouble
from oncall.model.symptom import Symptom
from oncall.model.topology import Topology
from oncall.telemetry.deviation import stale
from oncall.telemetry.vocabulary import meaning
from oncall.telemetry.window import Place, Series, Window

# A request or two that fail are no alarm, whatever share of a quiet service's traffic they are.
MIN_ERRORS = 3
# The slow ones of fewer requests are chance.
MIN_REQUESTS = 10
# How far a share must lie above the usual one, in standard deviations of as many requests.
_BY_CHANCE = 4.0
# Segments appear two to three seconds after what they hold; much later means that nobody records any more.
_BEHIND_S = 20.0
_PER_MILLISECOND = {"ms": 1.0, "s": 0.001, "us": 1000.0}


@dataclass(frozen=True)
class Noticed:
    """What stood out, how many services could be seen, and which could not: `region/service`."""

    sightings: tuple[Sighting, ...]
    services: int
    blind: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """A figure that is out of range, and whether it has been for long enough."""

    place: Place
    sighting: Sighting
    lasted: bool


def notice(window: Window, topology: Topology, thresholds: ShiftConfig, as_of: datetime) -> Noticed:
    """Everything that has been out of range for `thresholds.for_s`, in a window that was asked for up to `as_of`.

    A figure of half that age counts along with one of the same service, or of one that it calls or is called by.
    Errors need an absolute level and, where there is a past, one clearly above the usual; latency needs a past,
    traffic, and peers that do not slow down alike; saturation a past. A service is blind when none of its metrics has
    a reading of late: nothing is said of it then.
    """
    behind = (as_of - window.end).total_seconds() > _BEHIND_S
    fresh = {} if behind else {place: _fresh(metrics, window) for place, metrics in window.series.items()}
    found: list[_Candidate] = []
    blind: list[str] = []
    for place in topology.services:
        region, service = place.region, place.service
        metrics = fresh.get((region, service))
        if not metrics:
            blind.append(f"{region}/{service}")
            continue
        peers = [fresh.get((other, service), {}) for other in topology.regions if other != region]
        found += _Look((region, service), metrics, peers, thresholds).candidates()
    return Noticed(_counting(found, topology), len(topology.services) - len(blind), tuple(blind))


def _fresh(metrics: Mapping[str, Series], window: Window) -> dict[str, Series]:
    """What has readings of late, without those that are no number."""
    sound = {metric: _sound(series) for metric, series in metrics.items()}
    return {metric: series for metric, series in sound.items() if not stale(series, window.end.timestamp())}


def _sound(series: Series) -> Series:
    numbers = np.isfinite(series.values)
    return series if numbers.all() else Series(series.times[numbers], series.values[numbers])


def _counting(found: Sequence[_Candidate], topology: Topology) -> tuple[Sighting, ...]:
    """The candidates that have lasted, and those that come with one of them along the call graph.

    Services do not read their clocks together, and a failure takes a moment to reach the front door: without the
    younger ones the first sight of a fault is its edge, or two pieces with nothing between them.
    """
    places = {one.place for one in found}
    reached = {one.place for one in found if one.lasted}
    edge = set(reached)
    while edge:
        beside = {
            (region, other)
            for region, service in edge
            for other in (*topology.callees(region, service), *topology.callers(region, service))
        }
        edge = (beside & places) - reached
        reached |= edge
    return tuple(one.sighting for one in found if one.place in reached)


@dataclass(frozen=True)
class _Look:
    """One service and its peers, as they stand."""

    place: Place
    metrics: Mapping[str, Series]
    peers: Sequence[Mapping[str, Series]]
    thresholds: ShiftConfig

    def candidates(self) -> list[_Candidate]:
        """What of it is out of range."""
        share, slow = failures(self.metrics), latency(self.metrics)
        found = [
            None if share is None else self._failing(share),
            None if slow is None else self._slow(*slow),
            *(self._full(one) for one in taken(self.metrics)),
        ]
        return [candidate for candidate in found if candidate is not None]

    def _failing(self, share: Failures) -> _Candidate | None:
        span = self._span(share.times)
        among = None if share.requests is None else float(share.requests[span.recent].sum())
        now, newest = _level(share, span.recent), _level(share, span.newest)
        if among is not None and round(among * now / 100.0) < MIN_ERRORS:
            return None
        limit = self._error_limit(_usual_share(share, span), among)
        if min(now, newest) < limit or (stretch := span.stretch(share.percent >= limit)) is None:
            return None
        before, within = (share.in_unit(percent, span.recent) for percent in (now, limit))
        return self._candidate(Trouble.ERRORS, share.metric, before, within, stretch, error_percent=now)

    def _error_limit(self, usual: float, among: float | None) -> float:
        """The share, in percent, from which on failures are news where `usual` percent fail, `among` so many requests.

        Twice the odds, and more than chance. What is critical never becomes usual, however long it lasts.
        """
        share = min(usual, self.thresholds.critical_error_percent) / 100.0
        twice_the_odds = 2 * share / (1 + share)
        chance = _BY_CHANCE * math.sqrt(share * (1 - share) / among) if among else 0.0
        return max(self.thresholds.error_percent, 100.0 * twice_the_odds, 100.0 * (share + chance))

    def _slow(self, metric: str, series: Series) -> _Candidate | None:
        span = self._span(series.times)
        usual = span.usual(series.values)
        asked = requests(self.metrics)
        if usual is None or (asked is not None and asked.values[self._span(asked.times).recent].sum() < MIN_REQUESTS):
            return None
        base = usual * max(1.0, self._slowdown_of_peers(metric))
        more = self.thresholds.latency_ms * _PER_MILLISECOND.get(meaning(metric).unit, 1.0)
        return self._out_of(Trouble.LATENCY, metric, series, max(base * self.thresholds.latency_ratio, base + more))

    def _slowdown_of_peers(self, metric: str) -> float:
        """How many times slower than usual most other regions are: that much is the host's doing, or the hour's."""
        found = []
        for peer in self._of_peers(metric):
            if usual := self._span(peer.times).usual(peer.values):
                found.append(self._recent(peer) / usual)
        return _of_most(found)

    def _full(self, one: Taken) -> _Candidate | None:
        if self._span(one.series.times).usual(one.series.values) is None:
            return None
        limit = one.size * self.thresholds.saturation_percent / 100.0
        # Processors that are short everywhere are the host's, and nothing of this service's making.
        shared = "cpu" in meaning(one.metric).taken.split()
        if shared and _of_most([self._recent(peer) for peer in self._of_peers(one.metric)]) >= limit:
            return None
        return self._out_of(Trouble.SATURATION, one.metric, one.series, limit)

    def _out_of(self, trouble: Trouble, metric: str, series: Series, limit: float) -> _Candidate | None:
        span = self._span(series.times)
        now, newest = (float(np.median(series.values[part])) for part in (span.recent, span.newest))
        if min(now, newest) < limit or (stretch := span.stretch(series.values >= limit)) is None:
            return None
        return self._candidate(trouble, metric, now, limit, stretch)

    def _candidate(
        self,
        trouble: Trouble,
        metric: str,
        now: float,
        limit: float,
        stretch: tuple[float, bool],
        error_percent: float | None = None,
    ) -> _Candidate:
        began, lasted = stretch
        # Recovery takes what equals a threshold for well, and a figure that reaches its limit is out of range.
        within = math.nextafter(limit, -math.inf * meaning(metric).bad)
        region, service = self.place
        sighting = Sighting(
            trouble=trouble,
            symptom=Symptom(region=region, service=service, metric=metric, before=now, threshold=within),
            since=datetime.fromtimestamp(began, UTC),
            error_percent=error_percent,
        )
        return _Candidate(self.place, sighting, lasted)

    def _span(self, times: np.ndarray) -> Span:
        return Span(times, self.thresholds.for_s)

    def _recent(self, series: Series) -> float:
        return float(np.median(series.values[self._span(series.times).recent]))

    def _of_peers(self, metric: str) -> list[Series]:
        return [metrics[metric] for metrics in self.peers if metric in metrics]


def _level(share: Failures, part: Mask) -> float:
    """The failing share of that part's requests, in percent."""
    weights = share.weights[part]
    total = float(weights.sum())
    return float((share.percent[part] * weights).sum()) / total if total > 0 else 0.0


def _usual_share(share: Failures, span: Span) -> float:
    """The median share over pieces of the past that are as long as what is judged, in percent; 0 without a past.

    A median over single readings would not do: of a handful of requests mostly none fails.
    """
    weights, pieces = share.weights[span.past], span.pieces()
    among = np.bincount(pieces, weights)
    failed = np.bincount(pieces, weights * share.percent[span.past])
    known = among > 0
    if np.count_nonzero(known) < MIN_PAST_SPANS:
        return 0.0
    return float(np.median(failed[known] / among[known]))


def _of_most(values: Sequence[float]) -> float:
    """The lower median: at least half of the values are as high. 0 without any."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0
