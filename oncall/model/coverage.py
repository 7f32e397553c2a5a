"""The denominator of every conclusion."""

from oncall.model.agent import Specialist
from oncall.model.frozen import Frozen


class Coverage(Frozen):
    """How many agents were planned, and what became of them."""

    planned: int = 0
    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    revoked: int = 0
    skipped: int = 0


class PlaceCoverage(Coverage):
    """The agents of one specialist in one region."""

    region: str
    specialist: Specialist


class Wave(Frozen):
    """The agents that were sent last, by region and specialist: one roster's worth, 1 being the first.

    A finding that could not be verified later still counts as completed here: only the whole coverage knows of it.
    """

    number: int = 0
    places: tuple[PlaceCoverage, ...] = ()
