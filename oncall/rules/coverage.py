"""Counting what became of each agent."""

from enum import StrEnum

from oncall.model.coverage import Coverage
from oncall.model.errors import ErrorCode


class AgentOutcome(StrEnum):
    """What became of one agent; each value is the name of a field of `Coverage`."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REVOKED = "revoked"
    SKIPPED = "skipped"


def count(coverage: Coverage, outcome: AgentOutcome) -> Coverage:
    """`coverage` with one more agent accounted for."""
    return coverage.model_copy(update={outcome.value: getattr(coverage, outcome.value) + 1})


def discount(coverage: Coverage, unverified: int) -> Coverage:
    """`coverage` once `unverified` of the findings that came back turned out not to count: those agents failed."""
    return coverage.model_copy(
        update={"completed": coverage.completed - unverified, "failed": coverage.failed + unverified}
    )


def failure(error_type: str | None, timed_out: bool) -> AgentOutcome:
    """The outcome of an agent whose activity failed with the error code `error_type`."""
    if timed_out:
        return AgentOutcome.TIMED_OUT
    revoked = (ErrorCode.GRANT_REVOKED, ErrorCode.GRANT_EXPIRED, ErrorCode.HALTED)
    return AgentOutcome.REVOKED if error_type in revoked else AgentOutcome.FAILED
