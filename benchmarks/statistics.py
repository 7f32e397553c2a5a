"""Medians and their uncertainty: percentile bootstrap over rounds (Efron, "Bootstrap Methods", Ann. Statist. 7, 1979).

A round is one run of every arm, one after the other. Rounds are resampled whole, so that what slowed a whole round
down, another process for instance, cancels in a ratio instead of widening it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 4000
CONFIDENCE = 0.95
_SEED = 20261120


@dataclass(frozen=True)
class Estimate:
    """A statistic of `n` rounds, and the bootstrap interval around it that holds 95 % of the resampled values."""

    value: float
    low: float
    high: float
    n: int


def median(samples: Sequence[float]) -> Estimate:
    """The median, in the samples' own unit. Raises ValueError for no samples."""
    return _bootstrap((samples,), lambda columns: np.median(columns[0], axis=-1))


def ratio(numerator: Sequence[float], *denominators: Sequence[float]) -> Estimate:
    """median(numerator) / sum of the denominators' medians; the i-th samples of all come from the i-th round.

    Raises ValueError for no samples, no denominator, or arms of unequal length.
    """
    if not denominators:
        raise ValueError("a ratio needs a denominator")

    def statistic(columns: tuple[Floats, ...]) -> Floats:
        above, *below = (np.median(column, axis=-1) for column in columns)
        return np.asarray(above / np.sum(below, axis=0), dtype=np.float64)

    return _bootstrap((numerator, *denominators), statistic)


def _bootstrap(arms: Sequence[Sequence[float]], statistic: Callable[[tuple[Floats, ...]], Floats]) -> Estimate:
    columns = tuple(np.asarray(arm, dtype=np.float64) for arm in arms)
    rounds = len(columns[0])
    if rounds == 0:
        raise ValueError("no samples")
    if any(len(column) != rounds for column in columns):
        raise ValueError("the arms have unequal numbers of rounds")
    # A fixed seed: the same samples print the same interval.
    chosen = np.random.default_rng(_SEED).integers(0, rounds, size=(RESAMPLES, rounds))
    resampled = statistic(tuple(column[chosen] for column in columns))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Estimate(float(statistic(columns)), float(low), float(high), rounds)
