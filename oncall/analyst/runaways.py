"""Statements that run away: several executions of one statement, each far older than the statement ever takes.

Judged by ages and counts alone: what a query waits for, and how it is written, says nothing reliable.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONG_S = 1.0
_TIMES_ITS_MEAN = 10.0
_SEVERAL = 2


@dataclass(frozen=True)
class Runaway:
    """The running executions of one statement: `ages_s` oldest first; `usual_s` is its mean from completed runs.

    `min_age_s` is the age from which an execution counts as running away.
    """

    database: str
    role: str
    query_id: str
    text: str
    ages_s: tuple[float, ...]
    usual_s: float
    min_age_s: int

    @property
    def max_count(self) -> int:
        """How many executions a remedy may end: twice what was seen, for those that start before it is applied."""
        return min(100, 2 * len(self.ages_s))


def runaways(value: Mapping[str, Any]) -> tuple[Runaway, ...]:
    """The runaway statements in a value of `query_slow_queries`, most executions first; empty over a recording."""
    usual = {entry["query_id"]: entry["mean_ms"] / 1000 for entry in value.get("statements") or ()}
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for entry in value.get("active", ()):
        if entry["query_id"] is not None:
            groups.setdefault((entry["database"], entry["role"], entry["query_id"]), []).append(entry)
    found = []
    for (database, role, query_id), entries in groups.items():
        mean = usual.get(query_id, 0.0)
        limit = max(LONG_S, _TIMES_ITS_MEAN * mean)
        ages = sorted((entry["age_s"] for entry in entries if entry["age_s"] >= limit), reverse=True)
        if len(ages) >= _SEVERAL and math.floor(limit) <= ages[-1]:
            found.append(
                Runaway(database, role, query_id, entries[0]["text"], tuple(ages), mean, max(1, math.floor(limit)))
            )
    return tuple(sorted(found, key=lambda runaway: (-len(runaway.ages_s), runaway.query_id)))


def long_running(values: Sequence[Mapping[str, Any]]) -> int:
    """How many executions run away, over several values of `query_slow_queries`."""
    return sum(len(runaway.ages_s) for value in values for runaway in runaways(value))
