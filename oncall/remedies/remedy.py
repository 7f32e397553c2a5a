"""What a remedy is: one entry of the action catalogue as an effect on a real system.

A remedy sees the signed parameters, the digest they were signed under, and credentials bound to that signature; nothing
else decides what it changes or where. Its phases are separate because the ledger writes between them: what `precheck`
read is recorded before `apply` may touch anything, so that an attempt that died in between can be picked up by another
process, which reads back before it writes.

Every phase raises only `Terminal` and `Retryable`, with messages free of secrets and of text from the target.
"""

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, Field, SecretStr

from oncall.model.frozen import Frozen

P = TypeVar("P", bound=BaseModel)


class Credentials(Protocol):
    """Releases the secrets that one approved request names."""

    async def reveal(self, reference: str) -> SecretStr:
        """The secret at `reference`. Raises Terminal (not granted, missing, halted) or Retryable (vault down)."""
        ...


class Session:
    """One attempt at one signed request: its digest, and its credentials, each asked for once.

    `digest` is the idempotency key and the signature that a remedy leaves on its target.
    """

    def __init__(self, digest: str, credentials: Credentials) -> None:
        self.digest = digest
        self._credentials = credentials
        self._revealed: dict[str, SecretStr] = {}

    async def reveal(self, reference: str) -> SecretStr:
        """The secret at `reference`; raises as `Credentials.reveal` does."""
        if reference not in self._revealed:
            self._revealed[reference] = await self._credentials.reveal(reference)
        return self._revealed[reference]


class Reading(Frozen):
    """The target before the change, as JSON values, and all that `apply` needs to know from it.

    `nothing` is true when there is nothing to change; `detail` then says why.
    """

    values: dict[str, Any] = Field(default_factory=dict)
    nothing: bool = False
    detail: str = ""


class Applied(StrEnum):
    """Whether the change is on the target. UNKNOWN is for a write whose fate could not be read back in time."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Effect(Frozen):
    """What `apply` established, as JSON values."""

    applied: Applied
    values: dict[str, Any] = Field(default_factory=dict)
    detail: str = ""


class Proof(Frozen):
    """What the target says afterwards. `harm` means that the change itself made things worse: undo it."""

    verified: bool
    values: dict[str, Any] = Field(default_factory=dict)
    detail: str = ""
    harm: bool = False


class Remedy(ABC, Generic[P]):
    """One action type's effect, in the order in which its phases run."""

    repeatable: bool
    """Whether `apply` with the same reading and digest is harmless a second time (compare-and-set, or victims
    identified beyond reuse). Without it an interrupted attempt is never applied again."""

    @abstractmethod
    async def precheck(self, parameters: P, session: Session) -> Reading:
        """Reads the target. Raises Terminal(TARGET_CHANGED) when it is no longer what the human approved to change."""

    @abstractmethod
    async def read_back(self, parameters: P, session: Session, before: Reading) -> Effect | None:
        """This request's effect where it is visible on the target, else None."""

    @abstractmethod
    async def apply(self, parameters: P, session: Session, before: Reading) -> Effect:
        """Makes the change. A raised Terminal means that nothing was changed by this call."""

    @abstractmethod
    async def verify(self, parameters: P, session: Session, before: Reading, effect: Effect) -> Proof:
        """Reads the target until it shows the change or a bounded wait is over."""

    async def rollback(self, parameters: P, session: Session, effect: Effect) -> bool:
        """Restores the target as it was before `effect`, unless somebody has changed it since; true when it did.

        A remedy that cannot be undone keeps this default.
        """
        return False
