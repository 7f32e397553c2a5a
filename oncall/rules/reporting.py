"""Lines of the report, made from gates and results."""

from oncall.model.action import Action, ActionResult, Outcome
from oncall.model.incident import Gate
from oncall.model.report import AccessEntry, ActionEntry
from oncall.trust import requests


def access_entry(gate: Gate) -> AccessEntry:
    """One question to a human as the report tells it."""
    return AccessEntry(
        request_id=gate.request_id,
        grant_id=gate.grant_id,
        kind=gate.request.kind,
        references=gate.request.references,
        purpose=gate.request.purpose,
        request_digest=gate.request_digest,
        decision=gate.status,
        approvers=gate.approvers,
        reason=gate.reason,
        requested_at=gate.requested_at,
        answer_by=gate.request.answer_by,
        decided_at=gate.decided_at,
        grant_expires_at=gate.request.grant_expires_at,
        received=gate.history,
        refused_decisions=gate.refused,
        last_refusal=gate.last_refusal,
    )


def action_entry(action: Action, gate: Gate, result: ActionResult | None) -> ActionEntry:
    """One action as the report tells it; whatever did not succeed leaves its manual steps to a human."""
    outcome = result.outcome if result else Outcome.SKIPPED
    return ActionEntry(
        action_id=action.action_id,
        action_digest=requests.action_digest(action.parameters, action.target),
        type=action.parameters.type,
        target=action.target,
        parameters=action.parameters.model_dump(mode="json", exclude={"type"}),
        risk=action.risk,
        verdict=gate.verdict,
        request_id=gate.request_id,
        outcome=outcome,
        before=result.before if result else {},
        after=result.after if result else {},
        verified=result.verified if result else False,
        rolled_back=result.rolled_back if result else False,
        detail=result.detail if result else "",
        reason=action.reason,
        manual_steps=() if outcome is Outcome.SUCCEEDED else action.manual_steps,
    )
