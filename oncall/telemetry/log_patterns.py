"""Which log patterns of a service are new, more frequent or gone, and which of its errors are its own.

An error is a service's own when no service it calls logged an error in the same trace: the deepest service that
complains is where the failure began. No message text is interpreted beyond masking its numbers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oncall.model.topology import Topology
from oncall.telemetry.deviation import CAP
from oncall.telemetry.window import Floats, LogLines, Strings, Window

# Levels that say "this failed": RFC 5424's and those of the common logging libraries.
ERROR_LEVELS = frozenset({"ERROR", "ERR", "FATAL", "CRITICAL", "CRIT", "SEVERE", "ALERT", "EMERG", "PANIC"})
_ERROR_WORDS = re.compile(r"\b(error|exception|fatal|panic|traceback)\b", re.IGNORECASE)
_HORIZONS_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0)
_LIKE_THE_BEST = 0.8
# A pattern must have been this frequent before its absence means anything.
_ENOUGH_TO_MISS = 10.0
_MISSING_WEIGHT = 0.5
# With gaps drawn at random, a silence of six mean gaps comes once in four hundred.
_GAPS = 6.0
_SILENCE_S = 6.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """One log pattern's change.

    `recent` lines were counted since `onset` (seconds since the epoch) where `expected` were to be expected, from the
    service's past and its peers; `score` is the difference in Poisson deviations, signed, within ±CAP. `own` is the
    share, 0 to 1, of its recent lines that no called service's error explains. `example` is untrusted text.
    """

    template: str
    example: str
    error: bool
    recent: int
    expected: float
    score: float
    own: float
    onset: float


def is_error(lines: LogLines) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which lines report a failure: by level, or, where the source has no levels, by the words of the pattern."""
    known: dict[tuple[str, str], bool] = {}

    def judge(level: str, template: str) -> bool:
        key = (level, "" if level else template)
        if key not in known:
            known[key] = level in ERROR_LEVELS if level else bool(_ERROR_WORDS.search(template))
        return known[key]

    pairs = zip(lines.levels, lines.templates, strict=True)
    return np.fromiter((judge(level, template) for level, template in pairs), np.bool_, len(lines))


def _erring(window: Window, region: str) -> Mapping[str, frozenset[str]]:
    """Per trace of a region, the services that logged an error in it."""

    def compute() -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for (place, service), lines in window.log_lines.items():
            if place == region:
                for trace in set(lines.traces[is_error(lines)]) - {""}:
                    found.setdefault(trace, set()).add(service)
        return {trace: frozenset(services) for trace, services in found.items()}

    return window.derived(("erring", region), compute)


def _below(topology: Topology, region: str, service: str) -> frozenset[str]:
    """Every service that `service` reaches by calls, itself excluded."""
    reached: set[str] = set()
    waiting = [service]
    while waiting:
        for callee in topology.callees(region, waiting.pop()):
            if callee not in reached:
                reached.add(callee)
                waiting.append(callee)
    return frozenset(reached - {service})


def _covered(window: Window) -> Floats:
    """The whole seconds in which anything anywhere was logged: gaps in a recording are not silence."""

    def compute() -> Floats:
        seconds = [np.unique(np.floor(lines.times)) for lines in window.log_lines.values() if len(lines)]
        return np.unique(np.concatenate(seconds)) if seconds else np.empty(0)

    return window.derived("covered", compute)


def _own_share(traces: Strings, own_below: frozenset[str], erring: Mapping[str, frozenset[str]]) -> float:
    explained = sum(1 for trace in traces if trace and erring.get(trace, frozenset()) & own_below)
    return 1.0 - explained / max(1, len(traces))


def patterns(window: Window, topology: Topology, region: str, service: str) -> Sequence[Pattern]:
    """The service's log patterns with their change, largest first. Worked out once per window and service."""

    def compute() -> Sequence[Pattern]:
        lines, covered = window.logs(region, service), _covered(window)
        if not len(lines) or len(covered) < 2:
            return ()
        errors = is_error(lines)
        below, erring = _below(topology, region, service), _erring(window, region)
        peers = [window.logs(other, service) for other in topology.regions if other != region]
        end = window.end.timestamp()
        found = []
        for template in dict.fromkeys(lines.templates):
            mask = lines.templates == template
            times = lines.times[mask]
            error = bool(errors[mask][-1])
            score, start, recent, expected = _change(lines, times, covered, end, error)
            if abs(score) >= 2:
                for peer in peers:
                    similar = int(np.count_nonzero((peer.templates == template) & (peer.times >= start)))
                    expected = max(expected, similar) if score > 0 else min(expected, similar)
                score = float(np.sign(score)) * min(abs(score), abs(_poisson(recent, expected, error)))
            since = times >= start
            found.append(
                Pattern(
                    template=str(template),
                    example=str(lines.messages[mask][-1]),
                    error=error,
                    recent=recent,
                    expected=expected,
                    score=score,
                    own=_own_share(lines.traces[mask][since], below, erring) if error else 1.0,
                    onset=float(times[since][0]) if since.any() else start,
                )
            )
        return tuple(sorted(found, key=lambda pattern: (-abs(pattern.score), pattern.template)))

    return window.derived(("patterns", region, service), compute)


def _poisson(recent: int, expected: float, error: bool) -> float:
    score = (recent - expected) / float(np.sqrt(expected + 1.0))
    if score < 0:
        # Only a habit that stopped says something; fewer errors than usual say nothing.
        score = 0.0 if error or expected < _ENOUGH_TO_MISS or recent else _MISSING_WEIGHT * score
    elif not error:
        score = 0.0
    return float(np.clip(score, -CAP, CAP))


def _going_on(times: Floats, start: float, end: float) -> bool:
    """Whether the lines since `start` still keep coming at `end`: what is over is no fault.

    They stopped when the silence after the last is far longer than the gaps between them were.
    """
    since = times[times >= start]
    if len(since) < 2:
        return True
    gap = float(since[-1] - since[0]) / (len(since) - 1)
    return end - float(since[-1]) <= _SILENCE_S + _GAPS * gap


def _change(
    lines: LogLines,
    times: Floats,
    covered: Floats,
    end: float,
    error: bool,
) -> tuple[float, float, int, float]:
    """(score, start, recent, expected) over the longest of the most telling horizons."""
    tried = []
    for horizon in _HORIZONS_S:
        start = max(end - horizon, float(covered[0]))
        past_s = int(np.searchsorted(covered, start))
        recent_s = len(covered) - past_s
        if past_s < max(5, recent_s // 4) or not recent_s:
            continue
        recent = int(np.count_nonzero(times >= start))
        before = len(times) - recent
        if error:
            expected = before * recent_s / past_s
        else:
            # A share of all lines, not a rate: less traffic makes every pattern rarer.
            total = int(np.count_nonzero(lines.times >= start))
            expected = before * total / max(1, len(lines) - total)
        score = _poisson(recent, expected, error) * (not error or _going_on(times, start, end))
        tried.append((score, start, recent, expected))
    if not tried:
        return 0.0, end, 0, 0.0
    best = max(abs(entry[0]) for entry in tried)
    return [entry for entry in tried if abs(entry[0]) >= _LIKE_THE_BEST * best][-1]
