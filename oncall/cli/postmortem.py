"""The postmortem as a neutral document: headings, paragraphs, lists, tables and evidence.

Markdown, HTML and the terminal render the same blocks, and each escapes every text of them: much of it is untrusted.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oncall.model.access import GateStatus
from oncall.model.action import Outcome
from oncall.model.report import ActionEntry, IncidentReport
from oncall.rules.ending import touched


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the document's."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table with a header row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Evidence:
    """A value as it was observed, JSON on several lines."""

    title: str
    text: str


Block = Heading | Paragraph | Bullets | Grid | Evidence

_EVIDENCE_CHARS = 4000


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "–"


def number(value: float | None) -> str:
    """A measured value with at most two decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())


def postmortem(report: IncidentReport) -> tuple[Block, ...]:
    """Everything in the report that a person wants to read, in the order in which they ask."""
    return (
        *_summary(report),
        *_diagnosis(report),
        *_actions(report),
        *_verification(report),
        *_access(report),
        *_timeline(report),
        *_evidence(report),
    )


def _summary(report: IncidentReport) -> list[Block]:
    coverage = report.coverage
    rows = [
        ("status", report.status),
        ("severity", report.severity),
        ("anomaly", report.anomaly_type),
        ("opened", f"{_time(report.opened_at)} by {report.requester or 'nobody known'}"),
        ("closed", _time(report.closed_at)),
        (
            "coverage",
            f"{coverage.completed} of {coverage.planned} agents completed; failed {coverage.failed}, timed out"
            f" {coverage.timed_out}, revoked {coverage.revoked}, skipped {coverage.skipped}",
        ),
        ("workflow", f"{report.workflow_id}, run {report.run_id}"),
    ]
    message = report.alert.annotations.get("summary", "")
    blocks: list[Block] = [Heading(1, f"Incident {report.incident_id}: {report.status}")]
    if report.diagnosis:
        blocks.append(Paragraph(report.diagnosis.summary))
    blocks.append(Grid(("", ""), tuple(rows)))
    if message:
        blocks.append(Paragraph(f"The alert said: {message}"))
    if report.notes:
        blocks.append(Bullets(report.notes))
    return blocks


def _diagnosis(report: IncidentReport) -> list[Block]:
    diagnosis = report.diagnosis
    if diagnosis is None:
        return [Heading(2, "Diagnosis"), Paragraph("There is none: the investigation did not get that far.")]
    blocks: list[Block] = [Heading(2, "Diagnosis")]
    if cause := diagnosis.root_cause:
        where = f"{cause.service} in {cause.region} ({cause.specialist})"
        blocks.append(Paragraph(f"Root cause: {where}: {cause.cause}. Confidence {cause.confidence:.0%}."))
    else:
        blocks.append(Paragraph(f"No root cause was named: {diagnosis.conclusion}."))
    if diagnosis.claims:
        blocks.append(Bullets(tuple(f"{c.text} [{', '.join(c.observations)}]" for c in diagnosis.claims)))
    if diagnosis.dropped_claims:
        blocks.append(Paragraph(f"{diagnosis.dropped_claims} claims without evidence were dropped."))
    if diagnosis.blind:
        blocks.append(Paragraph(f"Could not be seen: {'; '.join(diagnosis.blind)}."))
    if diagnosis.ranked:
        rows = tuple((s.region, s.service, s.specialist.value, number(s.score)) for s in diagnosis.ranked[:5])
        blocks.append(Grid(("region", "service", "specialist", "score"), rows))
    return blocks


def _actions(report: IncidentReport) -> list[Block]:
    blocks: list[Block] = [Heading(2, "Actions")]
    if not report.actions:
        return [*blocks, Paragraph("None were proposed; nothing was changed." if report.closed_at else "None so far.")]
    for action in report.actions:
        blocks.append(Heading(3, f"{action.type}: {action.outcome}"))
        rows = [
            ("why", action.reason),
            ("parameters", _pairs(action.parameters)),
            ("target", f"{action.target.kind} {action.target.identity}"),
            ("risk", f"{action.risk}, policy says {action.verdict}"),
            ("request", action.request_id or "–"),
            ("before", _pairs(action.before) or "–"),
            ("after", _pairs(action.after) or "–"),
            ("read back", "verified" if action.verified else "not verified"),
        ]
        if action.rolled_back:
            rows.append(("rolled back", "yes"))
        if action.detail:
            rows.append(("detail", action.detail))
        blocks.append(Grid(("", ""), tuple(rows)))
        if action.manual_steps:
            blocks += [Paragraph(f"{_why_by_hand(report, action)} By hand:"), Bullets(action.manual_steps)]
    return blocks


def _why_by_hand(report: IncidentReport, action: ActionEntry) -> str:
    if report.closed_at is None and action.outcome is Outcome.SKIPPED:
        return "It has not ended so far."
    match action.outcome:
        case Outcome.UNKNOWN:
            return "Nobody could establish whether it took effect: look at the target first."
        case Outcome.FAILED:
            return "It was tried and did not succeed: look at the target first."
        case _:
            return "It did not run."


def _verification(report: IncidentReport) -> list[Block]:
    blocks: list[Block] = [Heading(2, "Recovery")]
    if report.verification is None:
        if report.closed_at is None:
            why = "Not measured so far."
        elif touched(action.outcome for action in report.actions):
            why = "Recovery was not measured, although something was, or may have been, changed."
        else:
            why = "Nothing was changed, so recovery was not measured."
        return [*blocks, Paragraph(why)]
    verdict = "Recovered." if report.verification.recovered else "Not recovered."
    rows = tuple(
        (c.name, c.region, c.service, number(c.before), number(c.after), number(c.threshold), "ok" if c.ok else "no")
        for c in report.verification.checks
    )
    if report.verification.blind:
        verdict += f" Could not be read: {'; '.join(report.verification.blind)}."
    return [*blocks, Paragraph(verdict), Grid(("check", "region", "service", "before", "after", "limit", ""), rows)]


def _access(report: IncidentReport) -> list[Block]:
    rows = tuple(
        (
            entry.request_id,
            entry.kind.value,
            entry.decision.value,
            ", ".join(entry.approvers) or "–",
            entry.reason or "–",
            _time(entry.decided_at if entry.decision is not GateStatus.PENDING else None),
            str(entry.refused_decisions),
        )
        for entry in report.access
    )
    header = ("request", "kind", "decision", "by", "reason", "at", "refused decisions")
    return [Heading(2, "Access"), Grid(header, rows)] if rows else []


def _timeline(report: IncidentReport) -> list[Block]:
    phases = tuple(
        (
            span.phase.value,
            _time(span.started_at),
            number((span.ended_at - span.started_at).total_seconds()) + " s" if span.ended_at else "–",
        )
        for span in report.phases
    )
    timings = tuple(
        (name.removesuffix("_s").replace("_", " "), number(value) + " s")
        for name, value in report.timings.model_dump().items()
        if value is not None
    )
    blocks: list[Block] = [Heading(2, "Timeline"), Grid(("phase", "from", "lasted"), phases)]
    return [*blocks, Grid(("", ""), timings)] if timings else blocks


def _evidence(report: IncidentReport) -> list[Block]:
    blocks: list[Block] = []
    for key, observation in sorted(report.observations.items()):
        text = json.dumps(observation.value, indent=1, ensure_ascii=True, sort_keys=True)
        if len(text) > _EVIDENCE_CHARS:
            text = text[:_EVIDENCE_CHARS] + f"\n… {len(text) - _EVIDENCE_CHARS} more characters in the JSON report"
        kind = "reproducible" if observation.reproducible else "live probe"
        title = f"{key}: {observation.tool}({_pairs(observation.arguments)}) at {_time(observation.taken_at)}, {kind}"
        blocks.append(Evidence(title, text))
    return [Heading(2, "Evidence"), *blocks] if blocks else []
