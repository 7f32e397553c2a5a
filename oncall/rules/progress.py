"""Tells how far an incident has come from its report so far, the same way while it runs and once it has closed."""

from collections.abc import Collection, Mapping
from typing import Any

from oncall.model.access import AccessKind, GateStatus
from oncall.model.action import Outcome
from oncall.model.progress import ActionProgress, IncidentProgress, WaitingRequest
from oncall.model.report import AccessEntry, ActionEntry, IncidentReport


def progress(report: IncidentReport, settled: Collection[str] | None = None) -> IncidentProgress:
    """The progress that `report` tells. `settled` are the ids of the actions whose outcome is known; None: all are.

    A report that is not final says `skipped` of an action that has not run yet as of one that will not.
    """
    by_request = {action.request_id: action for action in report.actions}
    decisions = {entry.request_id: entry.decision for entry in report.access}
    pending = [entry for entry in report.access if entry.decision is GateStatus.PENDING]
    return IncidentProgress(
        incident_id=report.incident_id,
        workflow_id=report.workflow_id,
        run_id=report.run_id,
        phase=report.phases[-1].phase,
        status=report.status,
        severity=report.severity,
        anomaly_type=report.anomaly_type,
        opened_at=report.opened_at,
        coverage=report.coverage,
        waiting_for=tuple(entry.request_id for entry in pending),
        summary=report.diagnosis.summary if report.diagnosis else "",
        closed_at=report.closed_at,
        phases=report.phases,
        wave=report.wave,
        waiting=tuple(_waiting(entry, by_request.get(entry.request_id)) for entry in pending),
        actions=tuple(
            ActionProgress(
                action_id=action.action_id,
                type=action.type,
                target=action.target,
                request_id=action.request_id,
                decision=decisions.get(action.request_id or "", GateStatus.PENDING),
                outcome=_outcome(action, settled),
                detail=action.detail,
            )
            for action in report.actions
        ),
        recovered=report.verification.recovered if report.verification else None,
        notes=report.notes,
    )


def _waiting(entry: AccessEntry, action: ActionEntry | None) -> WaitingRequest:
    parameters = {"type": action.type, **action.parameters} if action else None
    return WaitingRequest(
        request_id=entry.request_id,
        kind=entry.kind,
        what=asked(entry.kind, parameters, len(entry.references)),
        since=entry.requested_at,
        answer_by=entry.answer_by,
    )


def _outcome(action: ActionEntry, settled: Collection[str] | None) -> Outcome | None:
    return action.outcome if settled is None or action.action_id in settled else None


def asked(kind: AccessKind, parameters: Mapping[str, Any] | None, references: int) -> str:
    """One line: the kind and, for WRITE, the action's type and every parameter. Text from outside stays as it is."""
    if parameters is None:
        return f"{kind.upper()} access to {references} references"
    fields = dict(parameters)
    name = fields.pop("type")
    return " ".join((kind.upper(), str(name), *(f"{key}={value}" for key, value in fields.items())))
