"""How an incident may be called once it is over."""

from collections.abc import Iterable

from oncall.model.action import Outcome
from oncall.model.diagnosis import Conclusion
from oncall.model.incident import Ending
from oncall.model.verification import Verification

TOUCHED = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNKNOWN})
"""Outcomes after which the estate may have changed, so that recovery must be measured."""


GOOD = frozenset({Ending.RESOLVED, Ending.NO_FAULT, Ending.SELF_RECOVERED})
"""Endings that leave nothing to a human. A mitigated incident has not recovered."""


def touched(outcomes: Iterable[Outcome]) -> bool:
    """Whether any action may have changed the estate."""
    return any(outcome in TOUCHED for outcome in outcomes)


def ending(outcomes: Iterable[Outcome], verification: Verification | None) -> Ending:
    """The ending that the measurements allow. Without a measurement of recovery nothing is `resolved`."""
    if verification is None or not touched(outcomes):
        return Ending.UNRESOLVED
    if verification.recovered:
        return Ending.RESOLVED
    return Ending.MITIGATED if verification.improved else Ending.UNRESOLVED


def without_cause(conclusion: Conclusion, measured: Verification | None, figures: bool) -> Ending:
    """The ending of an incident that ran no remedy and named nothing to remedy.

    `measured` is what the alert's own figures say now, `figures` whether it has some: "all is well" does not stand
    against them, nor while they cannot be measured.
    """
    if measured is not None and measured.recovered:
        return Ending.SELF_RECOVERED
    return Ending.NO_FAULT if conclusion is Conclusion.NO_FAULT and not figures else Ending.UNRESOLVED
