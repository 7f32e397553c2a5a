"""All that a shift knows: what one run of its workflow hands to the next."""

from datetime import datetime

from oncall.model.access import SharedGrant
from oncall.model.frozen import Frozen
from oncall.model.incident import Gate
from oncall.model.shift import FollowedIncident, Look, Problem, ShiftOpening
from oncall.model.steps import Surveyed


class ShiftState(Frozen):
    """`grant` is the READ grant that is in use, `expires_at` its end and `gates` the questions to people, oldest first.

    `run_id` is the first run of the chain, `next_look_at` when the next look is due, `blind_since` when looks began to
    fail; `surveyed` what a worker knew when a question was last asked; `question` that one's digest until its grant is
    in use.
    """

    run_id: str
    started_at: datetime
    runs: int = 1
    surveyed: Surveyed | None = None
    requester: str | None = None
    grant: SharedGrant | None = None
    grant_digest: str | None = None
    expires_at: datetime | None = None
    renew_at: datetime | None = None
    question: str | None = None
    gates: tuple[Gate, ...] = ()
    next_look_at: datetime
    last_look: Look | None = None
    looks: int = 0
    blind_since: datetime | None = None
    problems: tuple[Problem, ...] = ()
    closed: tuple[Problem, ...] = ()
    followed: tuple[FollowedIncident, ...] = ()
    opened: int = 0
    notes: tuple[str, ...] = ()
    refused_orders: int = 0
    last_refusal: str = ""


class ShiftIn(Frozen):
    """The input of a shift workflow: the opening, and what the run before it knew (None for the first)."""

    opening: ShiftOpening
    state: ShiftState | None = None
