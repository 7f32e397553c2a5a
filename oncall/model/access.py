"""What a human is asked, what they answered, and what that opened."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import model_validator

from oncall.model.action import Parameters, Target, target_of
from oncall.model.alert import Severity
from oncall.model.frozen import Frozen

NAMESPACE_DECISION = "oncall-decision"
NAMESPACE_TRIGGER = "oncall-trigger"
NAMESPACE_ABORT = "oncall-abort"
NAMESPACE_SHIFT = "oncall-shift"
NAMESPACE_STOP = "oncall-stop"
NAMESPACES = (NAMESPACE_DECISION, NAMESPACE_TRIGGER, NAMESPACE_ABORT, NAMESPACE_SHIFT, NAMESPACE_STOP)
"""What a person's key signs: an approver's line allows these and nothing else."""


class AccessKind(StrEnum):
    """READ opens telemetry and probes; WRITE opens exactly one action."""

    READ = "read"
    WRITE = "write"


class Intent(Frozen):
    """The one effect that a WRITE request asks for. A target that does not follow from the parameters is refused."""

    version: int = 1
    parameters: Parameters
    target: Target

    @model_validator(mode="after")
    def _target_follows(self) -> "Intent":
        if self.target != target_of(self.parameters):
            raise ValueError("the target is not the one that the parameters name")
        return self


class AccessRequest(Frozen):
    """What a human signs, by its digest. Every field is part of the digest, so none can change after the yes.

    `requester` is the person whose signature opened the incident, or None. `evidence_digest` names the signed synthesis
    that the action follows from (WRITE only). A shift's request has the shift's id for the incident's, and no severity.
    Times are UTC.
    """

    schema_id: Literal["oncall.access-request/1"] = "oncall.access-request/1"
    kind: AccessKind
    tenant: str
    incident_id: str
    requester: str | None
    severity: Severity | None
    purpose: str
    references: tuple[str, ...]
    intent: Intent | None = None
    evidence_digest: str | None = None
    policy_digest: str
    ledger_id: str
    nonce: str
    not_before: datetime
    answer_by: datetime
    grant_expires_at: datetime


class Decision(Frozen):
    """A human's yes or no to one request digest, with the SSH signature that makes it one.

    The signature (armored SSHSIG, namespace `oncall-decision`) is over the canonical JSON of the other fields.
    """

    schema_id: Literal["oncall.decision/1"] = "oncall.decision/1"
    request_digest: str
    approved: bool
    reason: str = ""
    decided_at: datetime
    signature: str = ""


class AbortOrder(Frozen):
    """A person's order to stop one incident at its next safe point, never within an action.

    The signature (armored SSHSIG, namespace `oncall-abort`) is over the canonical JSON of the other fields.
    """

    schema_id: Literal["oncall.abort/1"] = "oncall.abort/1"
    incident_id: str
    run_id: str
    reason: str
    ordered_at: datetime
    signature: str = ""


class SharedGrant(Frozen):
    """A shift's READ grant, for the incidents that it opens: the bytes that were signed over, and the signatures.

    Nothing more is needed to believe it, and nothing less is believed.
    """

    request: str
    decisions: tuple[Decision, ...]


class Approvers(Frozen):
    """Who may decide: an OpenSSH allowed_signers text, and a map of key fingerprints (`SHA256:…`) to people."""

    allowed_signers: str
    people: dict[str, str]


class Grant(Frozen):
    """What an approved request opened. Its id is derived from the request digest; it holds no secret."""

    grant_id: str
    request_digest: str
    kind: AccessKind
    references: tuple[str, ...]
    holder: str
    not_before: datetime
    expires_at: datetime


class DecisionOutcome(StrEnum):
    """What became of one decision that reached a gate."""

    APPROVED = "approved"
    DENIED = "denied"
    DUPLICATE = "duplicate"
    LATE = "late"
    UNKNOWN_REQUEST = "unknown_request"
    REFUSED = "refused"


class GateStatus(StrEnum):
    """Where a request stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    REVOKED = "revoked"
    NOT_REQUIRED = "not_required"


class DecisionRecord(Frozen):
    """One decision as a gate saw it: who (None when the signature did not verify), when, and what became of it."""

    outcome: DecisionOutcome
    person: str | None
    received_at: datetime
    detail: str = ""
