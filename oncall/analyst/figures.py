"""What a service's metrics say of what people ask first: how much fails, how slow it is, what is running out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from oncall.telemetry.vocabulary import Aspect, meaning
from oncall.telemetry.window import Floats, Series

# Of several latencies the slow requests' one first, but not the slowest's: that is a single request.
_SLOW_FIRST = ("95", "99", "90")
# Units of what is said per second; anything else is a count since the reading before.
_RATES = ("1/s", "/s", "ops", "rps", "qps")


@dataclass(frozen=True)
class Failures:
    """The share of a service's requests that fail, in percent, by reading; `metric` is the one that says so.

    `requests` are how many each reading is about, None where the source does not tell.
    """

    metric: str
    times: Floats
    percent: Floats
    requests: Floats | None

    @property
    def weights(self) -> Floats:
        """How much each reading counts."""
        return np.ones_like(self.percent) if self.requests is None else self.requests

    def in_unit(self, percent: float, of: np.ndarray) -> float:
        """What `metric` reads when `percent` of the requests of the readings `of` (a mask) fail."""
        about = meaning(self.metric)
        if about.aspect is Aspect.SUCCESS:
            return 100.0 - percent
        if about.unit == "%" or self.requests is None:
            return percent
        per_reading = percent / 100.0 * float(self.requests[of].mean())
        return per_reading / _interval_s(self.metric, self.times)


@dataclass(frozen=True)
class Taken:
    """How much is taken of something finite, as readings of `metric`, and how much there is, in its unit."""

    metric: str
    series: Series
    size: float


def period_s(times: Floats) -> float:
    """The usual time between readings, in seconds; 0 for fewer than two."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def failures(metrics: Mapping[str, Series]) -> Failures | None:
    """The service's failing share: as a metric says it, else from its errors and requests; None where none can be told.

    Readings without requests are left out: nothing of nothing is no share.
    """
    counted = requests(metrics)
    for aspect in (Aspect.ERRORS, Aspect.SUCCESS):
        for metric, series in _own(metrics, aspect):
            if meaning(metric).unit == "%":
                share = series.values if aspect is Aspect.ERRORS else 100.0 - series.values
                return _with_traffic(metric, series.times, share, counted)
    if counted is None:
        return None
    for metric, series in _own(metrics, Aspect.ERRORS):
        among = np.interp(series.times, counted.times, counted.values)
        errors = np.clip(series.values * _interval_s(metric, series.times), 0.0, np.maximum(among, 0.0))
        share = 100.0 * np.divide(errors, among, out=np.zeros_like(errors), where=among > 0)
        return _with_traffic(metric, series.times, share, counted)
    return None


def _with_traffic(metric: str, times: Floats, share: Floats, counted: Series | None) -> Failures:
    share = np.clip(share, 0.0, 100.0)
    if counted is None:
        return Failures(metric, times, share, None)
    among = np.interp(times, counted.times, counted.values)
    asked = among > 0
    return Failures(metric, times[asked], share[asked], among[asked])


def latency(metrics: Mapping[str, Series]) -> tuple[str, Series] | None:
    """The metric that best says how long the service's slow requests take; None where none does."""
    found = _own(metrics, Aspect.LATENCY)
    for percentile in _SLOW_FIRST:
        for metric, series in found:
            if percentile in metric:
                return metric, series
    return found[0] if found else None


def requests(metrics: Mapping[str, Series]) -> Series | None:
    """How many requests the service finished since the reading before; None where the source does not tell."""
    found = sorted(_own(metrics, Aspect.TRAFFIC), key=lambda each: "request" not in each[0].lower())
    if not found:
        return None
    metric, series = found[0]
    return Series(series.times, series.values * _interval_s(metric, series.times))


def taken(metrics: Mapping[str, Series]) -> list[Taken]:
    """Of how much of each finite thing the service tells: percentages, and amounts of which a metric says the size.

    What several services show alike (a node's figures) is left out: it is none's own.
    """
    sizes = {
        (about.size, about.unit): float(series.values[-1])
        for metric, series in metrics.items()
        if (about := meaning(metric)).size and len(series)
    }
    found = []
    for metric in sorted(metrics):
        about = meaning(metric)
        if not about.taken or about.shared or about.outside:
            continue
        size = 100.0 if about.unit == "%" else sizes.get((about.taken, about.unit), 0.0)
        if size > 0 and len(metrics[metric]):
            found.append(Taken(metric, metrics[metric], size))
    return found


def _own(metrics: Mapping[str, Series], aspect: Aspect) -> list[tuple[str, Series]]:
    """The service's own metrics of this aspect that have readings, by name: not its calls of others."""
    return [
        (metric, metrics[metric])
        for metric in sorted(metrics)
        if (about := meaning(metric)).aspect is aspect
        and about.end is None
        and not about.outside
        and len(metrics[metric])
    ]


def _interval_s(metric: str, times: Floats) -> float:
    """What a reading is to be multiplied with to count events: its interval for a rate, 1 for a count."""
    return (period_s(times) or 1.0) if meaning(metric).unit in _RATES else 1.0
