"""How far a series has left its own past, since when, and whether its peers in other regions did the same.

Robust statistics throughout: the centre is a median and the spread the widest of the interdecile and interquartile
ranges (scaled to a standard deviation, Rousseeuw & Croux 1993), never less than a floor, because a constant past
would make any change infinite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oncall.telemetry.vocabulary import Aspect, Meaning, meaning
from oncall.telemetry.window import Floats, Series, Window

MIN_PAST = 5
CAP = 100.0
_RELATIVE_FLOOR = 0.1
# Close enough together that one of them holds any long fault whole and little besides.
_HORIZONS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 115, 150, 195, 255, 330, 430, 560, 730, 950, 1235)
# A change that one or two readings carry, or that has lasted a few seconds only, may be a blip: it counts for less.
_FEW_POINTS = {1: 0.85, 2: 0.95}
_LASTING_S = 8.0
# Failures come without reason less often than slowness does: half as long is enough.
_FAILING_S = 4.0
_LIKE_THE_BEST = 0.8
_LOOK_AT_PEERS = 2.0
# Failures above every peer by this factor, for all that can be seen, are no habit of the region.
_TIMES_A_PEER = 2.0
# Regions that change alike seldom change by exactly the same.
_LIKE_A_PEER = 0.25
_STALE_PERIODS = 4.0
_STALE_S = 10.0


@dataclass(frozen=True, slots=True)
class Deviation:
    """One series' latest level against its past.

    `past` and `recent` are medians in the metric's unit, `spread` the past's robust standard deviation. `own` is the
    signed deviation from its own past in spreads; `score` the same after what a peer region shares is taken away.
    Both lie within ±CAP. `onset` is when the recent level began, seconds since the epoch; `points` how many readings
    carry it.
    """

    past: float
    recent: float
    spread: float
    own: float
    score: float
    onset: float
    points: int
    peers: tuple[str, ...] = ()


def _spread(ordered: Floats, floor: float) -> tuple[float, float]:
    """Median and robust standard deviation (at least the floors) of a sorted, non-empty array."""
    last = len(ordered) - 1
    tenth, quarter, half, three, nine = (float(ordered[round(last * q)]) for q in (0.1, 0.25, 0.5, 0.75, 0.9))
    return half, max((nine - tenth) / 2.563, (three - quarter) / 1.349, _RELATIVE_FLOOR * abs(half), floor, 1e-9)


def _floor(values: Floats, stated: float) -> float:
    # Without a unit, a twentieth of all that was ever seen keeps the first small step of a constant from counting.
    return stated or 0.05 * float(np.abs(values).max(initial=0.0))


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) > 2 else float(values.mean())


def stale(series: Series, end_s: float) -> bool:
    """Whether the series had stopped well before `end_s` (seconds since the epoch): its last level is not today's."""
    if len(series) < 2:
        return True
    age_s = end_s - float(series.times[-1])
    if age_s <= _STALE_S:
        return False
    return age_s > _STALE_PERIODS * float(np.median(np.diff(series.times)))


def deviate(series: Series, about: Meaning, end_s: float) -> Deviation | None:
    """The series' deviation from its own past at `end_s` (seconds since the epoch).

    None without a past of MIN_PAST readings, or when the series had stopped by then.

    Tries several lengths of "recent" and takes the longest among the most deviant, so that a fault of five seconds
    and one of five minutes are both found. The latest readings must still deviate: what is over is no fault.
    """
    values = series.values
    count = len(values)
    if count <= MIN_PAST or stale(series, end_s):
        return None
    floor = _floor(values, about.floor)
    period = float(np.median(np.diff(series.times)))
    lasting_s = _FAILING_S if about.failures else _LASTING_S
    latest = _median(values[-2:])
    tried: list[tuple[float, int, float, float, float]] = []
    for recent in _HORIZONS:
        if count - recent < MIN_PAST or recent > 0.75 * count:
            break
        centre, spread = _spread(np.sort(values[: count - recent]), floor)
        level = _median(values[count - recent :])
        distance = (level - centre) / spread
        current = 2 * (latest - centre) / spread
        if distance * current <= 0:
            distance = 0.0
        distance = float(np.sign(distance)) * min(abs(distance), abs(current), CAP)
        distance *= min(_FEW_POINTS.get(recent, 1.0), recent * period / lasting_s)
        tried.append((distance, recent, centre, spread, level))
    best = max(abs(entry[0]) for entry in tried)
    distance, recent, centre, spread, level = [t for t in tried if abs(t[0]) >= _LIKE_THE_BEST * best][-1]
    first = _first_of_level(values, count - recent, centre, level)
    return Deviation(
        past=centre,
        recent=level,
        spread=spread,
        own=distance,
        score=distance,
        onset=float(series.times[first]),
        points=count - first,
    )


def _first_of_level(values: Floats, start: int, centre: float, level: float) -> int:
    """The index at which the level that holds at the end began: the last point nearer to the past, plus one."""
    nearer_past = np.abs(values - centre) < np.abs(values - level)
    before = np.flatnonzero(nearer_past[: max(start, 1)])
    inside = np.flatnonzero(nearer_past[start:-1]) if start < len(values) - 1 else np.empty(0, np.int64)
    # One stray point inside the recent stretch does not move its start; a leading run of past-like points does.
    lead = 0
    while lead < len(inside) and inside[lead] == lead:
        lead += 1
    if lead:
        return start + lead
    return int(before[-1]) + 1 if len(before) else start


def unshared(own: Deviation, about: Meaning, peers: Mapping[str, Series]) -> Deviation:
    """`own` with the change that the most similar peer shows over the same time taken away.

    `peers` are the same metric of the same service in other regions. A change that every region shows (a deploy, a
    busy host, daylight) is not what sets this one apart.
    """
    if abs(own.own) < _LOOK_AT_PEERS or not peers:
        return own
    change = own.recent - own.past
    remaining, compared = abs(own.own), []
    for region, peer in peers.items():
        past, recent = peer.values[peer.times < own.onset], peer.values[peer.times >= own.onset]
        if len(past) < MIN_PAST or not len(recent):
            continue
        shared = _median(recent) - _median(past)
        compared.append(region)
        # Not the peer's own spread: an earlier incident of the peer would make it wide enough to hide anything here.
        remaining = min(remaining, abs(change - shared) / max(own.spread, _LIKE_A_PEER * abs(shared)))
    sign = float(np.sign(own.own))
    return Deviation(
        past=own.past,
        recent=own.recent,
        spread=own.spread,
        own=own.own,
        score=sign * min(remaining, CAP),
        onset=own.onset,
        points=own.points,
        peers=tuple(compared),
    )


def beyond_peers(own: Deviation, series: Series, about: Meaning, peers: Mapping[str, Series]) -> Deviation:
    """`own`, unless its failures lie above every peer's for as long as can be seen: then how far they do.

    A fault that is older than the window has no past in it to differ from. Then the same service in the other regions
    is the control.
    """
    levels = [
        _spread(np.sort(about.bad * peer.values), _floor(peer.values, about.floor))
        for peer in peers.values()
        if len(peer) >= MIN_PAST
    ]
    if not levels:
        return own
    worst, spread = max(level for level, _ in levels), max(width for _, width in levels)
    values = about.bad * series.values
    least = min(_median(values), _median(values[-2:]))
    distance = min((least - worst) / spread, CAP)
    if distance <= abs(own.score) or (worst > 0 and least < _TIMES_A_PEER * worst):
        return own
    return Deviation(
        past=about.bad * worst,
        recent=about.bad * least,
        spread=spread,
        own=own.own,
        score=about.bad * distance,
        onset=float(series.times[0]),
        points=len(series),
        peers=tuple(peers),
    )


def deviations(window: Window, region: str, service: str, regions: Sequence[str]) -> Mapping[str, Deviation]:
    """Every metric of a service that has a past, by name, compared with the same service in the other `regions`.

    Worked out once per window and service, whoever asks.
    """

    def compute() -> Mapping[str, Deviation]:
        found: dict[str, Deviation] = {}
        end = window.end.timestamp()
        others = {other: window.metrics(other, service) for other in regions if other != region}
        for metric, series in window.metrics(region, service).items():
            about = meaning(metric)
            own = deviate(series, about, end)
            if own is not None:
                peers = {other: metrics[metric] for other, metrics in others.items() if metric in metrics}
                found[metric] = unshared(own, about, peers)
                if about.bad and about.aspect in (Aspect.ERRORS, Aspect.SUCCESS):
                    found[metric] = beyond_peers(found[metric], series, about, peers)
        return found

    return window.derived(("deviations", region, service), compute)


def badness(deviation: Deviation, about: Meaning) -> float:
    """How bad a deviation is, 0 and up: its size in the bad direction.

    Half where the direction is the good one for a subject (a drop in processor use is seldom a cause, but a service
    that has stopped working shows it), nothing where a symptom improved.
    """
    if about.bad == 0:
        return abs(deviation.score)
    signed = deviation.score * about.bad
    return max(0.0, signed)
