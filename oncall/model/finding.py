"""What one agent concluded, and the small signed stub of it that history carries."""

from enum import StrEnum

from oncall.model.agent import Specialist
from oncall.model.frozen import Frozen
from oncall.model.observation import Observation


class Health(StrEnum):
    """An agent's verdict on its service, within its focus."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Finding(Frozen):
    """One agent's conclusion. `score` is a robust deviation, 0 (as always) and up; `blind` names what it could not see.

    `symptom` is how far the service's own callers-visible behaviour (errors, latency) deviates; `score` how far the
    specialist's own subject does.
    """

    agent: str
    specialist: Specialist
    service: str
    region: str
    health: Health
    score: float
    symptom: float = 0.0
    summary: str
    observations: tuple[Observation, ...] = ()
    blind: tuple[str, ...] = ()


class FindingRef(Frozen):
    """A finding's stub in history: the digest of its envelope in blob storage, and the agent's signature.

    `digest` is `sha256:<hex>` of the stored DSSE envelope; `signature` is base64.
    """

    agent: str
    specialist: Specialist
    service: str
    region: str
    health: Health
    score: float
    digest: str
    signature: str
    secret_requests: int = 0
