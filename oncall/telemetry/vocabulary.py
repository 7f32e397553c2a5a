"""What a metric's name says about it, by the words the field uses, so that no data set's names are listed anywhere.

A name reads `words(unit):other end`; unit and other end are optional. Units follow the Prometheus naming guide
(https://prometheus.io/docs/practices/naming/): without one, a latency is in seconds.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

_NAME = re.compile(r"^(?P<words>[^(:]*)(?:\((?P<unit>[^)]*)\))?(?::(?P<end>.*))?$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Aspect(StrEnum):
    """What a metric is about. The first three are what callers notice; the last five have a specialist each."""

    LATENCY = "latency"
    ERRORS = "errors"
    SUCCESS = "success"
    TRAFFIC = "traffic"
    OTHER = "other"
    DATABASE = "database"
    CACHE = "cache"
    NETWORK = "network"
    RESOURCES = "resources"
    LOGS = "logs"


SYMPTOMS = frozenset({Aspect.LATENCY, Aspect.ERRORS, Aspect.SUCCESS})

_SUBJECTS: tuple[tuple[Aspect, frozenset[str]], ...] = (
    (Aspect.CACHE, _set("cache caches hit hits miss misses evicted eviction evictions keyspace")),
    (
        Aspect.DATABASE,
        _set(
            "pool pools connection connections db database sql query queries lock locks deadlock deadlocks"
            " transaction transactions tuples replication wal"
        ),
    ),
    (
        Aspect.NETWORK,
        _set("network net packets retransmits retransmit tcp rtt dns receive received transmit transmitted"),
    ),
    (
        Aspect.RESOURCES,
        _set(
            "cpu memory mem heap disk filesystem fd fds gc threads goroutines throttled restart restarts syscall"
            " syscalls rss load oom"
        ),
    ),
)
_ERRORS = _set("error errors fault faults failure failures failed exception exceptions timeout timeouts rejected")
_LATENCY = _set("latency latencies duration response")
_SUCCESS = _set("success successes availability available uptime")
_TRAFFIC = _set("request requests workload ops throughput traffic calls rps qps")
_GOOD_WHEN_HIGH = _set("hit hits free idle available")
# What can run out, and the words for how much of it is taken and for how much there is.
_FINITE = _set("cpu memory mem heap disk filesystem fd fds threads pool pools connections")
_TAKEN = _set("in use used usage utilization active busy rate percent")
_SIZE = _set("size max maximum limit capacity total")
# The smallest change worth naming, in the metric's own unit, however quiet its past was.
_FLOORS = {
    "%": 2.0,
    "ms": 10.0,
    "s": 0.01,
    "us": 10_000.0,
    "1/s": 0.2,
    "ops": 0.2,
    "count": 0.7,
    "m": 10.0,
    "mb": 8.0,
    "mi": 8.0,
}


@dataclass(frozen=True)
class Meaning:
    """`bad` is +1 when more is worse, -1 when less is worse, 0 when either may be.

    `floor` is in the metric's unit. `end` is the other end of the call that it measures, if it measures one; `outside`
    is true when it is seen from the calling side; `shared` when several services show the same value.
    `failures` is true when it counts failures of its subject. `unit` is in lower case, "" where none is known. `taken`
    is the finite thing that it says the use of, `size` the one that it says the size of, "" otherwise: equal words
    name the same thing.
    """

    aspect: Aspect
    bad: int
    floor: float
    end: str | None
    outside: bool
    shared: bool
    failures: bool
    unit: str
    taken: str
    size: str


@lru_cache(maxsize=4096)
def meaning(metric: str) -> Meaning:
    """What `metric` measures, from the words of its name; aspect OTHER when no word is known."""
    match = _NAME.match(metric)
    text, unit, end = match.group("words", "unit", "end") if match else (metric, None, None)
    words = frozenset(word.lower() for word in _WORD.findall(text))
    unit = (unit or "").lower()
    aspect, bad = Aspect.OTHER, 0
    if words & _ERRORS:
        aspect, bad = Aspect.ERRORS, 1
    elif words & _LATENCY:
        aspect, bad = Aspect.LATENCY, 1
        unit = unit or "s"
    elif words & _SUCCESS:
        aspect, bad = Aspect.SUCCESS, -1
        unit = unit or "%"
    elif words & _TRAFFIC:
        aspect = Aspect.TRAFFIC
    for subject, vocabulary in _SUBJECTS:
        if words & vocabulary and end is None:
            aspect = subject
            bad = bad or (-1 if words & _GOOD_WHEN_HIGH else 1)
            break
    outside, failures = "client" in words, bool(words & _ERRORS)
    taken = size = ""
    if words & _FINITE and end is None and not words & (_ERRORS | _LATENCY | _SUCCESS | _GOOD_WHEN_HIGH):
        if words & _SIZE:
            size = " ".join(sorted(words - _SIZE - _TAKEN))
        else:
            taken = " ".join(sorted(words - _TAKEN))
    return Meaning(
        aspect, bad, _FLOORS.get(unit, 0.0), end, outside, "node" in words, failures, unit=unit, taken=taken, size=size
    )
