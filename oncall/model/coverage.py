"""The denominator of every conclusion."""

from oncall.model.frozen import Frozen


class Coverage(Frozen):
    """How many agents were planned, and what became of them."""

    planned: int = 0
    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    revoked: int = 0
    skipped: int = 0
