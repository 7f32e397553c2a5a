"""Counting what became of each agent, in all and by region and specialist."""

from collections import Counter
from enum import StrEnum
from typing import TypeVar

from oncall.model.agent import Agent
from oncall.model.coverage import Coverage, PlaceCoverage, Wave
from oncall.model.errors import ErrorCode

Counts = TypeVar("Counts", bound=Coverage)


class AgentOutcome(StrEnum):
    """What became of one agent; each value is the name of a field of `Coverage`."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REVOKED = "revoked"
    SKIPPED = "skipped"


def count(coverage: Counts, outcome: AgentOutcome) -> Counts:
    """`coverage` with one more agent accounted for."""
    return coverage.model_copy(update={outcome.value: getattr(coverage, outcome.value) + 1})


def discount(coverage: Coverage, unverified: int) -> Coverage:
    """`coverage` once `unverified` of the findings that came back turned out not to count: those agents failed."""
    return coverage.model_copy(
        update={"completed": coverage.completed - unverified, "failed": coverage.failed + unverified}
    )


def next_wave(wave: Wave, agents: tuple[Agent, ...]) -> Wave:
    """The wave after `wave`, of these agents, none of whom has answered. As large as the roster has places."""
    planned = Counter((agent.region, agent.specialist) for agent in agents)
    places = tuple(
        PlaceCoverage(region=region, specialist=specialist, planned=number)
        for (region, specialist), number in planned.items()
    )
    return Wave(number=wave.number + 1, places=places)


def answered(wave: Wave, agent: Agent, outcome: AgentOutcome) -> Wave:
    """`wave` with one of its agents accounted for. An agent whose place is not on its roster changes nothing."""
    places = tuple(
        count(place, outcome) if (place.region, place.specialist) == (agent.region, agent.specialist) else place
        for place in wave.places
    )
    return wave.model_copy(update={"places": places})


def failure(error_type: str | None, timed_out: bool) -> AgentOutcome:
    """The outcome of an agent whose activity failed with the error code `error_type`."""
    if timed_out:
        return AgentOutcome.TIMED_OUT
    revoked = (ErrorCode.GRANT_REVOKED, ErrorCode.GRANT_EXPIRED, ErrorCode.HALTED)
    return AgentOutcome.REVOKED if error_type in revoked else AgentOutcome.FAILED
