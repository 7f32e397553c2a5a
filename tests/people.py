"""People with SSH keys, for tests that need a signature."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from oncall.cli import sshkeys
from oncall.model.access import NAMESPACE_ABORT, NAMESPACE_DECISION, AbortOrder, Approvers, Decision
from oncall.trust import requests


@dataclass(frozen=True)
class Person:
    """Somebody with a key of their own."""

    name: str
    key: Path
    public: sshkeys.PublicKey

    @classmethod
    def create(cls, folder: Path, name: str) -> "Person":
        """Make a key pair in `folder`."""
        key = folder / name
        return cls(name, key, sshkeys.generate(key, name, passphrase_prompt=False))

    def decide(self, request_digest: str, approved: bool, reason: str = "", at: datetime | None = None) -> Decision:
        """A signed decision."""
        decision = Decision(
            request_digest=request_digest, approved=approved, reason=reason, decided_at=at or datetime.now(UTC)
        )
        signature = sshkeys.sign_in_process(self.key, requests.decision_bytes(decision), NAMESPACE_DECISION)
        return decision.model_copy(update={"signature": signature})

    def abort(self, incident_id: str, run_id: str, reason: str, at: datetime | None = None) -> AbortOrder:
        """A signed order to stop."""
        order = AbortOrder(incident_id=incident_id, run_id=run_id, reason=reason, ordered_at=at or datetime.now(UTC))
        signature = sshkeys.sign_in_process(self.key, requests.abort_bytes(order), NAMESPACE_ABORT)
        return order.model_copy(update={"signature": signature})


def approvers(*people: Person) -> Approvers:
    """An approvers' list with these people on it."""
    signers = "\n".join(f"{person.name} {person.public.line}" for person in people)
    return Approvers(
        allowed_signers=signers + "\n", people={person.public.fingerprint: person.name for person in people}
    )
