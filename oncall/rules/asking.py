"""What a human is asked, and for how long they may answer and the grant lasts."""

from datetime import datetime, timedelta

from oncall.model.access import AccessKind, AccessRequest, Intent
from oncall.model.alert import Severity
from oncall.model.frozen import Frozen
from oncall.model.policy import Policy
from oncall.rules.approvals import CLOCK_SKEW

LONGEST_READ = timedelta(hours=12)
"""A READ grant lasts no longer, whatever the policy says."""

SHORTEST_ANSWER = timedelta(minutes=1)
"""What a person is given to answer in any case."""


class Asker(Frozen):
    """Who asks: an incident or a shift, with the times that its opening gives (seconds)."""

    tenant: str
    incident_id: str
    requester: str | None
    severity: Severity | None
    answer_by_s: int
    grant_s: int


class Rulebook(Frozen):
    """Under which policy, and for which ledger. Advisory: the broker uses its own."""

    policy: Policy
    policy_digest: str
    ledger_id: str


class Question(Frozen):
    """What is asked: the kind, the references and why; for WRITE the one effect and the evidence for it."""

    kind: AccessKind
    references: tuple[str, ...]
    purpose: str
    intent: Intent | None = None
    evidence_digest: str | None = None


def longest_grant(kind: AccessKind, policy: Policy) -> timedelta:
    """How long a grant of that kind may last, from the moment it is asked for."""
    longest = timedelta(seconds=policy.max_grant_s)
    return min(longest, LONGEST_READ) if kind is AccessKind.READ else longest


def ask(
    asker: Asker, book: Rulebook, question: Question, now: datetime, nonce: str, measured_by: datetime | None = None
) -> AccessRequest:
    """The request to be signed.

    A grant lasts no longer than the policy lets it, or the broker would refuse what a human had approved; and at least
    half of that is left once they have answered. `measured_by`: by then the answer must be there, so that what it
    allows can still be measured.
    """
    not_before = now - CLOCK_SKEW
    longest = longest_grant(question.kind, book.policy)
    answer_by = min(now + timedelta(seconds=asker.answer_by_s), not_before + longest / 2)
    if measured_by is not None:
        answer_by = min(answer_by, max(measured_by, now + SHORTEST_ANSWER))
    return AccessRequest(
        **question.model_dump(exclude={"intent"}),
        intent=question.intent,
        tenant=asker.tenant,
        incident_id=asker.incident_id,
        requester=asker.requester,
        severity=asker.severity,
        policy_digest=book.policy_digest,
        ledger_id=book.ledger_id,
        nonce=nonce,
        not_before=not_before,
        answer_by=answer_by,
        grant_expires_at=min(answer_by + timedelta(seconds=asker.grant_s), not_before + longest),
    )
