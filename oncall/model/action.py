"""The catalogue's schemas: typed actions with typed parameters. Effects live in `oncall/remedies`."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from oncall.model.frozen import Frozen


class Risk(StrEnum):
    """What an action can cost when it is wrong. A worker-local fact, never taken from a request."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Outcome(StrEnum):
    """What became of an action. `unknown` is an outcome nobody can establish; it is never called succeeded."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    EXPIRED = "expired"
    REFUSED = "refused"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


class Target(Frozen):
    """The thing an action changes; `identity` is unique within its kind."""

    kind: str
    identity: str


class KillQueries(Frozen):
    """End the running executions of one statement.

    `query_id` is PostgreSQL's `pg_stat_activity.query_id` as decimal text (it does not fit a JSON number). Only
    backends of `role` on `database` whose statement has run for at least `min_age_s` seconds, and at most
    `max_count` of them.
    """

    type: Literal["kill_queries"] = "kill_queries"
    region: str
    database: str
    role: str
    query_id: str = Field(pattern=r"^-?\d{1,20}$")
    min_age_s: int = Field(ge=1)
    max_count: int = Field(ge=1, le=100)


class DisableFlag(Frozen):
    """Turn one feature flag off in one region, if it still is at `expected_version`."""

    type: Literal["disable_flag"] = "disable_flag"
    region: str
    flag: str
    expected_version: int = Field(ge=0)


Parameters = Annotated[KillQueries | DisableFlag, Field(discriminator="type")]


def target_of(parameters: Parameters) -> Target:
    """The thing that an action with these parameters changes; equal for two actions that must not run at once."""
    match parameters:
        case KillQueries():
            return Target(kind="statement", identity=f"{parameters.region}/{parameters.database}/{parameters.query_id}")
        case DisableFlag():
            return Target(kind="flag", identity=f"{parameters.region}/{parameters.flag}")


class Action(Frozen):
    """A proposed action: what it would do, why, and what a human does by hand when it is denied."""

    action_id: str
    parameters: Parameters
    target: Target
    risk: Risk
    reversible: bool
    references: tuple[str, ...]
    reason: str
    observations: tuple[str, ...]
    manual_steps: tuple[str, ...]


class ActionResult(Frozen):
    """What the remediate worker says happened. `before` and `after` are the remedy's own readings (JSON objects)."""

    action_digest: str
    request_digest: str
    outcome: Outcome
    before: dict[str, Any] = Field(default_factory=dict)
    after: dict[str, Any] = Field(default_factory=dict)
    verified: bool = False
    rolled_back: bool = False
    detail: str = ""
    error_code: str | None = None
    secret_requests: int = 0
