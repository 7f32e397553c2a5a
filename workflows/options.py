"""Every timeout and retry policy, in one place.

Seconds are bounded twice: one attempt (`start_to_close`) and the step with all its retries (`schedule_to_close`), so
that a queue nobody polls ends in a recorded failure instead of silence.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy

from oncall.model import steps
from oncall.model.steps import Step

UNLIMITED = 0
"""Temporal's word for as many attempts as fit into `schedule_to_close`."""


@dataclass(frozen=True)
class Options:
    """How a step is tried. One whose worker has died is noticed, and one that runs can be cancelled, within
    `heartbeat`."""

    start_to_close: timedelta
    schedule_to_close: timedelta
    retry: RetryPolicy
    heartbeat: timedelta = timedelta(seconds=10)


def _retry(attempts: int) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=10),
        maximum_attempts=attempts,
    )


def _seconds(start_to_close: float, schedule_to_close: float, attempts: int) -> Options:
    return Options(
        start_to_close=timedelta(seconds=start_to_close),
        schedule_to_close=timedelta(seconds=schedule_to_close),
        retry=_retry(attempts),
    )


@dataclass(frozen=True)
class Rhythm:
    """Pauses between looks: `first`, then a `share` of the time waited so far, at most `longest`, so that a gate that
    stays open for days adds few events to its history."""

    first: timedelta
    share: float
    longest: timedelta


LOOK_AGAIN = Rhythm(timedelta(seconds=15), 0.2, timedelta(minutes=30))
"""How often an incident that waits for people measures whether it has recovered by itself."""

SURVEY_AGAIN = timedelta(seconds=20)
"""How long a shift that has a grant waits to hear what has changed: meanwhile it looks at nothing."""

VERIFY_PATIENCE = timedelta(seconds=60)
"""How long recovery is waited for after the last remedy."""

OPTIONS: dict[str, Options] = {
    # What only waits for another system to come back is tried for half an hour: a human's yes must not be wasted.
    steps.SURVEY.name: _seconds(10, 1800, attempts=UNLIMITED),
    steps.OPEN_GRANT.name: _seconds(20, 1800, attempts=UNLIMITED),
    # An agent that has not answered after its tries is missing coverage: the wave waits for it no longer.
    steps.INVESTIGATE.name: _seconds(20, 90, attempts=3),
    steps.SYNTHESIZE.name: _seconds(30, 180, attempts=5),
    # A remedy reads back before it writes again, so a killed worker's attempt can be repeated safely.
    steps.REMEDIATE.name: _seconds(60, 300, attempts=UNLIMITED),
    # Both look for seconds, then hold: 15 + 8 and 8, and what slow looks take. The workflow asks for more.
    steps.VERIFY.name: _seconds(40, 300, attempts=UNLIMITED),
    steps.MEASURE.name: _seconds(30, 90, attempts=3),
    # A look that fails is followed by the next one.
    steps.OBSERVE.name: _seconds(15, 30, attempts=2),
    steps.FOLLOW.name: _seconds(20, 60, attempts=3),
    steps.REPORT.name: _seconds(20, 1800, attempts=UNLIMITED),
}


def options(step: Step[Any, Any]) -> Options:
    """The options of a step."""
    return OPTIONS[step.name]
