"""What one incident under fire comes to: each of the campaign's zeros, in words where it is none."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from oncall.model.access import DecisionOutcome, GateStatus
from oncall.model.action import Outcome
from oncall.model.incident import Ending
from oncall.model.report import AccessEntry, ActionEntry, IncidentReport
from tests.campaign.agents import Agents
from tests.campaign.effects import Effects
from tests.campaign.effects import account as effects_account
from tests.campaign.events import Event, Source
from tests.campaign.person import Sent


@dataclass(frozen=True)
class Truth:
    """What the estate said as soon as the incident had closed."""

    fault_active: bool
    runaways: int


@dataclass(frozen=True)
class Unknown:
    """An outcome that nobody could establish: what the report says, and why that is true (None: it is not shown)."""

    action: str
    detail: str
    shown: str | None


@dataclass(frozen=True)
class Verdict:
    """Every list is empty when all is well. `why` explains an ending other than resolved."""

    ending: str
    lost: list[str] = field(default_factory=list)
    effects: Effects = field(default_factory=lambda: Effects(0))
    lost_decisions: list[str] = field(default_factory=list)
    falsely_resolved: list[str] = field(default_factory=list)
    agents: Agents = field(default_factory=Agents)
    unknown: list[Unknown] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    decisions: int = 0
    why: str = ""

    def faults(self) -> list[str]:
        """Everything that should not be, in words."""
        unshown = [f"unknown, and not shown to be: {one.action}: {one.detail}" for one in self.unknown if not one.shown]
        return [
            *(f"LOST INCIDENT: {line}" for line in self.lost),
            *(f"DOUBLED EFFECT: {line}" for line in self.effects.doubled),
            *(f"STRAY EFFECT: {line}" for line in self.effects.stray),
            *(f"LOST DECISION: {line}" for line in self.lost_decisions),
            *(f"FALSELY RESOLVED: {line}" for line in self.falsely_resolved),
            *(f"RAN AGAIN: {line}" for line in self.agents.wasted),
            *(f"UNKNOWN: {line}" for line in unshown),
            *(f"BROKEN: {line}" for line in self.broken),
        ]


def judge(
    report: IncidentReport, seen: Sequence[Event], sent: Sequence[Sent], approver: str, agents: Agents, truth: Truth
) -> Verdict:
    """The verdict on an incident that closed with `report`. `approver` is whose decisions count."""
    approved = {one.digest: one.request for one in sent if one.approved and one.genuine}
    return Verdict(
        ending=report.status,
        effects=effects_account(seen, approved),
        lost_decisions=lost_decisions(report.access, sent, approver),
        falsely_resolved=falsely_resolved(report, truth),
        agents=agents,
        unknown=[unknown(entry, seen, None) for entry in report.actions if entry.outcome is Outcome.UNKNOWN],
        decisions=len(sent),
        why=why(report),
    )


def lost_decisions(access: Sequence[AccessEntry], sent: Sequence[Sent], approver: str) -> list[str]:
    """Decisions that the server acknowledged and that the report does not show as decided, repeated or refused."""
    entries = {entry.request_digest: entry for entry in access}
    lost = []
    for digest, taken in Counter(one.digest for one in sent).items():
        entry = entries.get(digest)
        if entry is None:
            lost.append(f"{digest} is not in the report")
            continue
        if len(entry.received) < taken:
            lost.append(f"{entry.request_id}: {taken} decisions were acknowledged, {len(entry.received)} arrived")
        for one in (one for one in sent if one.digest == digest):
            if one.genuine and not _counted(entry, one.approved, approver):
                lost.append(f"{entry.request_id}: {approver} said {'yes' if one.approved else 'no'}: {entry.decision}")
            if not one.genuine and not any(r.outcome is DecisionOutcome.REFUSED and r.detail for r in entry.received):
                lost.append(f"{entry.request_id}: a stranger's decision was not refused with a reason")
    return lost


def _counted(entry: AccessEntry, approved: bool, approver: str) -> bool:
    wanted = GateStatus.APPROVED if approved else GateStatus.DENIED
    return entry.decision is wanted and entry.approvers == (approver,)


def falsely_resolved(report: IncidentReport, truth: Truth) -> list[str]:
    """Why `resolved` was not true, if that is what the report says."""
    if report.status != Ending.RESOLVED:
        return []
    wrong = ["the fault is still active"] if truth.fault_active else []
    if truth.runaways:
        wrong.append(f"{truth.runaways} queries still run away")
    if report.verification is None or not report.verification.recovered:
        wrong.append("no measurement of recovery")
    return wrong


def unknown(entry: ActionEntry, seen: Sequence[Event], unreachable: str | None) -> Unknown:
    """Holds an `unknown` against the ledger. It is true when the effect had begun, nobody has ended it, and the target
    was `unreachable` (how so) from then on. On a target that is reachable all the time what has begun can be read back,
    and what has not begun is known not to have happened."""
    rows = [event for event in seen if event.source is Source.LEDGER and _is_about(event.body, entry)]
    ended = [event.body["result"]["outcome"] for event in rows if event.kind == "effect_end"]
    begun = any(event.kind == "effect_begin" for event in rows)
    known = (
        f"the ledger has it ended: {ended[0]}" if ended else "begun" if begun else "the ledger has no beginning of it"
    )
    shown = f"begun, never ended, and {unreachable}" if unreachable and begun and not ended else None
    return Unknown(f"{entry.type} {entry.target.identity}", f"{entry.detail} ({known})", shown)


def _is_about(body: Any, entry: ActionEntry) -> bool:
    return entry.request_id is not None and entry.request_id.removeprefix("req-") in str(body["request_digest"])


def why(report: IncidentReport) -> str:
    """Why it did not end resolved, as far as the report tells; empty for one that did."""
    if report.status == Ending.RESOLVED:
        return ""
    parts = [
        f"{entry.type} {entry.outcome}: {entry.detail}" for entry in report.actions if entry.outcome != "succeeded"
    ]
    if report.diagnosis is not None and report.diagnosis.root_cause is None:
        parts.append(report.diagnosis.summary)
    if report.verification is not None and not report.verification.recovered:
        bad = [f"{check.name} of {check.service} {check.after}" for check in report.verification.checks if not check.ok]
        parts.append("not recovered: " + ", ".join(bad or report.verification.blind))
    covered = report.coverage
    if covered.completed < covered.planned:
        parts.append(f"{covered.completed} of {covered.planned} agents")
    return "; ".join((*parts, *report.notes))
