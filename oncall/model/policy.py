"""What needs whose yes. The default forbids everything."""

from enum import StrEnum

from pydantic import Field

from oncall.model.action import Risk
from oncall.model.frozen import Frozen


class Verdict(StrEnum):
    """What a policy says to an action type."""

    AUTO = "auto"
    APPROVE = "approve"
    TWO_PERSON = "two_person"
    FORBIDDEN = "forbidden"


class Rule(Frozen):
    """The verdict for one action type, and its risk in this environment."""

    verdict: Verdict = Verdict.FORBIDDEN
    risk: Risk = Risk.HIGH


class Policy(Frozen):
    """One version of the rules; its digest is part of every request."""

    version: int
    read: Verdict = Verdict.FORBIDDEN
    max_grant_s: int = Field(default=12 * 3600, ge=300)
    actions: dict[str, Rule] = Field(default_factory=dict)

    def rule(self, action_type: str) -> Rule:
        """The rule for an action type; one the policy does not name is forbidden."""
        return self.actions.get(action_type, Rule())
