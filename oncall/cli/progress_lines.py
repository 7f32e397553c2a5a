"""Tells an incident's progress in plain lines, one per change: for pipes, files and terminals that cannot redraw."""

from collections.abc import Iterator
from datetime import UTC, datetime

from oncall.cli.following import Sight
from oncall.model.access import GateStatus
from oncall.model.coverage import Coverage, Wave
from oncall.model.incident import Phase
from oncall.model.progress import ActionProgress, IncidentProgress
from oncall.rules.text import clipped

_CHARS = 400
_NOTHING = {
    "phases": (),
    "coverage": Coverage(),
    "wave": Wave(),
    "waiting": (),
    "actions": (),
    "summary": "",
    "notes": (),
    "closed_at": None,
}
"""What has been told before the first answer."""


def lines(before: Sight | None, now: Sight) -> list[str]:
    """What has changed since `before`, None being nothing: lines without any control character."""
    return [clipped(line, _CHARS) for line in _told(before, now)]


def _told(before: Sight | None, now: Sight) -> Iterator[str]:
    if before is None:
        outline = now.outline
        what = " ".join(filter(None, (outline.severity, outline.anomaly_type)))
        yield f"{outline.incident_id}: {what}, opened at {clock(outline.opened_at)}"
        if now.progress is None and now.status:
            yield f"{now.status}, as far as Temporal knows"
    was_silent = before is not None and before.silent_since is not None
    if was_silent and now.silent_since is None:
        yield "answers again"
    if now.progress:
        told = before.progress if before else None
        yield from _moved(told or now.progress.model_copy(update=_NOTHING), now.progress)
    if now.silent_since and not was_silent:
        yield f"no answer since {clock(now.silent_since)}; still asking: {now.why_silent}"


def _moved(before: IncidentProgress, now: IncidentProgress) -> Iterator[str]:
    for span in now.phases[len(before.phases) :]:
        yield f"phase {span.phase} at {clock(span.started_at)}"
    if (now.coverage, now.wave.number) != (before.coverage, before.wave.number):
        yield f"agents: {coverage(now)}"
    if now.summary != before.summary:
        yield f"diagnosis: {now.summary}"
    asked = {request.request_id for request in before.waiting}
    for request in now.waiting:
        if request.request_id not in asked:
            answer = f"answer by {clock(request.answer_by)}: `oncall approve {request.request_id}`"
            yield f"waits for an approver: {request.what}; {answer}"
    stood = {action.action_id: standing(before, action) for action in before.actions}
    for action in now.actions:
        if stood.get(action.action_id) != (stands := standing(now, action)):
            yield f"action {action.type} {action.target.identity}: {stands}"
    yield from (f"note: {note}" for note in now.notes if note not in before.notes)
    if now.closed_at and not before.closed_at:
        yield f"closed: {now.status}; `oncall report {now.incident_id}` tells it"


def standing(progress: IncidentProgress, action: ActionProgress) -> str:
    """Where an action of `progress` stands, in words."""
    if action.outcome is not None:
        return f"{action.outcome}: {action.detail}" if action.detail else str(action.outcome)
    if action.decision is GateStatus.PENDING:
        return "waits for an approver"
    # They run one after the other, in their order.
    runs = progress.phase is Phase.REMEDIATING and action == next(a for a in progress.actions if a.outcome is None)
    return "runs now" if runs else f"{action.decision}, has not run yet"


def coverage(progress: IncidentProgress) -> str:
    """Of how many agents what became, naming only what is not zero."""
    counts = progress.coverage
    rest = counts.model_dump(exclude={"planned", "completed"})
    named = [f"{number} {name.replace('_', ' ')}" for name, number in rest.items() if number]
    wave = f" (wave {progress.wave.number})" if progress.wave.number > 1 else ""
    return ", ".join((f"{counts.completed}/{counts.planned} completed", *named)) + wave


def clock(moment: datetime) -> str:
    """The time of day, in UTC."""
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"
