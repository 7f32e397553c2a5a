"""What an incident has recorded so far: all of the workflow's state in one object, and the report made from it.

Times are workflow times, so a replay writes the same journal.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from oncall.model.access import GateStatus
from oncall.model.action import Action, ActionResult, Outcome, Risk
from oncall.model.agent import Agent
from oncall.model.coverage import Coverage, Wave
from oncall.model.diagnosis import Diagnosis
from oncall.model.finding import FindingRef
from oncall.model.incident import Ending, Gate, IncidentStatus, PendingApproval, Phase, PhaseSpan
from oncall.model.names import SearchAttribute
from oncall.model.opening import Opening
from oncall.model.progress import IncidentProgress
from oncall.model.report import AbortOrders, AccessEntry, Files, IncidentReport, Timings, Usage
from oncall.model.steps import Synthesis
from oncall.model.verification import Verification
from oncall.rules import reporting
from oncall.rules.coverage import AgentOutcome, answered, count, discount, next_wave
from oncall.rules.ending import touched
from oncall.rules.orders import Verdict
from oncall.rules.progress import progress
from oncall.rules.text import markdown
from oncall.trust import requests
from workflows.gate import Gates

NOTES_KEPT = 50
"""Notes kept in the report, so that a flood of refused orders cannot grow it."""

FAILURES_NAMED = 5
"""Reasons that the report names for agents that failed, the most frequent ones."""

OUTCOME_OF_GATE = {
    GateStatus.DENIED: Outcome.DENIED,
    GateStatus.EXPIRED: Outcome.EXPIRED,
    GateStatus.PENDING: Outcome.SKIPPED,
}


class Journal:
    """The record of one incident run."""

    def __init__(self, opening: Opening, workflow_id: str, run_id: str) -> None:
        self.opening = opening
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.requester: str | None = None
        self.gates = Gates()
        self.coverage = Coverage()
        self.synthesis: Synthesis | None = None
        self.verification: Verification | None = None
        self.asked_for: dict[str, str] = {}
        self.results: dict[str, ActionResult] = {}
        self.notes: list[str] = []
        self._actions: list[Action] = []
        # Not now(): a worker that was away when the incident was opened would make it younger than it is.
        self._phases = [PhaseSpan(phase=Phase.RECEIVED, started_at=workflow.info().workflow_start_time)]
        self._ending: Ending | None = None
        self.wave = Wave()
        self._secret_requests = 0
        self._first_finding_at: datetime | None = None
        self._failures: Counter[str] = Counter()
        self._diagnosed_at: datetime | None = None
        self._effect_s: float | None = None
        self._report_path: str | None = None
        self._orders = AbortOrders()
        self._shown: dict[SearchAttribute, str] = {}

    # -- recording ----------------------------------------------------------------------------------------------

    @property
    def opened_at(self) -> datetime:
        """When the workflow began."""
        return self._phases[0].started_at

    @property
    def phase(self) -> Phase:
        """Where the incident is."""
        return self._phases[-1].phase

    def enter(self, phase: Phase) -> None:
        """Begin a phase; the one before ends."""
        if phase is self.phase:
            return
        now = workflow.now()
        self._phases[-1] = self._phases[-1].model_copy(update={"ended_at": now})
        self._phases.append(PhaseSpan(phase=phase, started_at=now))

    def note(self, text: str) -> None:
        """Keep a line that the report should carry."""
        if len(self.notes) < NOTES_KEPT:
            self.notes.append(text)

    def planned(self, agents: tuple[Agent, ...]) -> None:
        """A roster of `agents` is about to look: a wave of its own, from which the counts begin anew."""
        self.coverage = Coverage(planned=len(agents))
        self.wave = next_wave(self.wave, agents)

    def agent_failed(self, agent: Agent, outcome: AgentOutcome, why: str) -> None:
        """One agent is done and has found nothing. The report names the reasons that recur most."""
        self.coverage = count(self.coverage, outcome)
        self.wave = answered(self.wave, agent, outcome)
        self._failures[why] += 1

    def agent_completed(self, agent: Agent, finding: FindingRef) -> None:
        """One agent is done and has found what it could."""
        self.coverage = count(self.coverage, AgentOutcome.COMPLETED)
        self.wave = answered(self.wave, agent, AgentOutcome.COMPLETED)
        self._secret_requests += finding.secret_requests
        if self._first_finding_at is None:
            self._first_finding_at = workflow.now()

    def diagnosed(self, synthesis: Synthesis) -> None:
        """The synthesis is in. Findings that it could not verify do not count as coverage."""
        self.synthesis = synthesis
        self.coverage = discount(self.coverage, synthesis.unverified)
        self._diagnosed_at = workflow.now()

    def ordered(self, verdict: Verdict) -> None:
        """An order to stop arrived. Refused ones are counted, so that a flood cannot crowd out the one that counts."""
        if verdict.honoured:
            # Once: a copy of an honoured order says nothing new.
            if not self._orders.honoured:
                self.notes.append(verdict.note)
            self._orders = self._orders.model_copy(update={"honoured": verdict.note})
            return
        refused = {"refused": self._orders.refused + 1, "last_refusal": verdict.note}
        self._orders = self._orders.model_copy(update=refused)

    def asked(self, action: Action, risk: Risk, digest: str) -> None:
        """A WRITE request for `action`, of that risk by the policy, was opened under `digest`."""
        self._actions.append(action.model_copy(update={"risk": risk}))
        self.asked_for[action.action_id] = digest

    def decided_against(self, action: Action, gate: Gate) -> None:
        """The action will not run."""
        self.results[action.action_id] = ActionResult(
            action_digest=requests.action_digest(action.parameters, action.target),
            request_digest=gate.request_digest,
            outcome=OUTCOME_OF_GATE[gate.status],
            detail=gate.reason,
        )

    def acted(self, action: Action, gate: Gate, result: ActionResult) -> None:
        """The worker of the action that `gate` let through has answered."""
        self.results[action.action_id] = result
        self._secret_requests += result.secret_requests
        if self._effect_s is None and gate.decided_at is not None and touched([result.outcome]):
            self._effect_s = (workflow.now() - gate.decided_at).total_seconds()

    def close(self, result: Ending) -> None:
        """The incident is over; what still waits for a human does so no longer."""
        self.gates.withdraw_pending()
        self.enter(Phase.CLOSED)
        self._ending = result

    def written(self, path: str) -> None:
        """The report stands at `path` on the worker's host."""
        self._report_path = path

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The diagnosis, once there is one."""
        return self.synthesis.diagnosis if self.synthesis else None

    def status(self) -> IncidentStatus:
        """One look at the incident."""
        return IncidentStatus(
            incident_id=self.opening.incident_id,
            workflow_id=self.workflow_id,
            run_id=self.run_id,
            phase=self.phase,
            status=self._ending or self.phase,
            severity=self.opening.severity,
            anomaly_type=self.opening.anomaly_type,
            opened_at=self._phases[0].started_at,
            coverage=self.coverage,
            waiting_for=tuple(gate.request_id for gate in self.gates.pending()),
            summary=self.diagnosis.summary if self.diagnosis else "",
        )

    def progress(self) -> IncidentProgress:
        """All that moves in the incident."""
        return progress(self.report(), settled=self.results)

    def approvals(self) -> list[PendingApproval]:
        """What waits for a human."""
        by_digest = {self.asked_for[action.action_id]: action for action in self._actions}
        return [
            PendingApproval(
                incident_id=self.opening.incident_id,
                request_id=gate.request_id,
                request_digest=gate.request_digest,
                request=requests.request_text(gate.request),
                action=by_digest.get(gate.request_digest),
            )
            for gate in self.gates.pending()
        ]

    def access(self) -> list[AccessEntry]:
        """Every question to a human, and its answer."""
        return [reporting.access_entry(gate) for gate in self.gates.all()]

    def details(self) -> str:
        """Markdown for the Temporal UI: phase, coverage, what waits for whom."""
        done = self.coverage
        lines = [
            f"**{self._ending or self.phase}** · {self.opening.severity} · {markdown(self.opening.anomaly_type)}",
            f"coverage {done.completed}/{done.planned}, failed {done.failed}, timed out {done.timed_out}",
        ]
        if self.diagnosis:
            lines.append(markdown(self.diagnosis.summary))
        lines.extend(
            f"waits for an approver: `{gate.request_id}` {markdown(gate.request.purpose)} "
            f"(answer by {gate.request.answer_by:%H:%M:%S} UTC)"
            for gate in self.gates.pending()
        )
        lines.extend(f"{name}: {result.outcome}" for name, result in self.results.items())
        return "\n\n".join(lines)

    def changed_search_attributes(self) -> list[SearchAttributeUpdate[str]]:
        """The search attributes whose values differ from those last returned: each upsert is an event in history."""
        cause = self.diagnosis.root_cause if self.diagnosis else None
        values = {
            SearchAttribute.SEVERITY: str(self.opening.severity),
            SearchAttribute.STATUS: str(self._ending or self.phase),
            SearchAttribute.ANOMALY: self.opening.anomaly_type,
            SearchAttribute.SERVICE: cause.service if cause else self.opening.service or "",
            SearchAttribute.REGION: cause.region if cause else self.opening.region or "",
        }
        changed = {name: value for name, value in values.items() if value and self._shown.get(name) != value}
        self._shown |= changed
        return [SearchAttributeKey.for_keyword(name).value_set(value) for name, value in changed.items()]

    def report(self) -> IncidentReport:
        """The report as far as it has come."""
        opened, closed = self._phases[0].started_at, self._phases[-1] if self._ending else None
        synthesis = self.synthesis
        return IncidentReport(
            incident_id=self.opening.incident_id,
            workflow_id=self.workflow_id,
            run_id=self.run_id,
            status=self._ending or self.phase,
            severity=self.opening.severity,
            anomaly_type=self.opening.anomaly_type,
            requester=self.requester,
            opened_at=opened,
            closed_at=closed.started_at if closed else None,
            alert=self.opening.alert,
            phases=tuple(self._phases),
            coverage=self.coverage,
            diagnosis=self.diagnosis,
            observations={o.id: o for o in synthesis.observations} if synthesis else {},
            access=tuple(self.access()),
            actions=tuple(
                reporting.action_entry(action, gate, self.results.get(action.action_id))
                for action in self._actions
                for gate in self.gates.all()
                if gate.request_digest == self.asked_for[action.action_id]
            ),
            verification=self.verification,
            usage=Usage(model="analyst", secret_requests=self._secret_requests),
            timings=self._timings(closed.started_at if closed else None),
            files=Files(report=self._report_path),
            abort_orders=self._orders,
            notes=tuple(self._notes()),
            wave=self.wave,
        )

    def _notes(self) -> Iterator[str]:
        if self._orders.refused:
            yield f"{self._orders.refused} orders to abort were refused; the last: {self._orders.last_refusal}"
        if self.gates.unknown_decisions:
            yield f"{self.gates.unknown_decisions} decisions named no request of this incident"
        for why, agents in self._failures.most_common(FAILURES_NAMED):
            yield f"{agents} agents: {why}"
        yield from self.notes

    def _timings(self, closed_at: datetime | None) -> Timings:
        def since_opening(moment: datetime | None) -> float | None:
            return None if moment is None else (moment - self._phases[0].started_at).total_seconds()

        looked = next((span for span in self._phases if span.phase is Phase.INVESTIGATING), None)
        return Timings(
            trigger_to_first_finding_s=since_opening(self._first_finding_at),
            investigation_s=(looked.ended_at - looked.started_at).total_seconds()
            if looked and looked.ended_at
            else None,
            trigger_to_diagnosis_s=since_opening(self._diagnosed_at),
            approval_to_effect_s=self._effect_s,
            total_s=since_opening(closed_at),
        )
