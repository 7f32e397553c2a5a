"""What the evidence adds up to."""

from enum import StrEnum

from oncall.model.agent import Specialist
from oncall.model.frozen import Frozen


class Conclusion(StrEnum):
    """The three honest answers."""

    ROOT_CAUSE = "root_cause"
    NO_FAULT = "no_fault"
    INCONCLUSIVE = "inconclusive"


class Suspect(Frozen):
    """One place on the ranking."""

    region: str
    service: str
    specialist: Specialist
    score: float


class RootCause(Frozen):
    """The one evidenced cause; `confidence` is 0 to 1."""

    region: str
    service: str
    specialist: Specialist
    cause: str
    confidence: float


class Claim(Frozen):
    """A sentence and the observations that carry it. Code drops a claim without one."""

    text: str
    observations: tuple[str, ...]


class Diagnosis(Frozen):
    """Ranked suspects and a conclusion. `blind` names what could not be seen."""

    conclusion: Conclusion
    root_cause: RootCause | None
    abstained: bool
    summary: str
    ranked: tuple[Suspect, ...]
    claims: tuple[Claim, ...]
    dropped_claims: int = 0
    blind: tuple[str, ...] = ()
