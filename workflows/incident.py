"""The incident workflow: the runbook of one problem, from alert to closed report.

Phases happen in the order they are written in `_handle`. No I/O, no decisions about the domain: those are steps and
rules.
"""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from oncall.model import names, steps
    from oncall.model.access import (
        AbortOrder,
        AccessKind,
        AccessRequest,
        Decision,
        GateStatus,
        Intent,
        SharedGrant,
    )
    from oncall.model.action import Action, ActionResult, Outcome
    from oncall.model.agent import Agent
    from oncall.model.diagnosis import Conclusion
    from oncall.model.finding import FindingRef
    from oncall.model.incident import Ending, Gate, IncidentStatus, PendingApproval, Phase
    from oncall.model.opening import Opening
    from oncall.model.progress import IncidentProgress
    from oncall.model.report import AccessEntry, IncidentReport
    from oncall.rules import approvals, coverage, orders
    from oncall.rules.asking import Asker, Question, Rulebook, ask
    from oncall.rules.ending import ending, touched, without_cause
    from oncall.rules.roster import Ring, first_ring, roster
    from oncall.rules.text import markdown
    from oncall.trust import requests
    from workflows.call import call, failure, start
    from workflows.journal import Journal
    from workflows.options import options
    from workflows.recovery import Recovery

SHORTEST_READ = timedelta(seconds=30)
"""A READ grant that ends sooner is not worth starting anything under."""


CANCELLED = "cancelled with the incident"

OFFERS_KEPT = 10
"""Grants that are kept until they can be checked; the opening's own comes first."""


class Aborted(Exception):
    """A signed order to stop was honoured at a safe point."""


@workflow.defn(name=names.INCIDENT_WORKFLOW)
class IncidentWorkflow:
    """One incident. Its id is its dedupe key; its result is its report."""

    @workflow.init
    def __init__(self, opening: Opening) -> None:
        info = workflow.info()
        self._opening = opening
        self._journal = Journal(opening, info.workflow_id, info.run_id)
        self._surveyed: steps.Surveyed | None = None
        self._unread: list[tuple[AbortOrder, datetime]] = []
        self._aborted = False
        self._offered = [opening.grant] if opening.grant else []
        self._grant: str | None = None
        self._read_until: datetime | None = None
        self._shared = False
        self._recovery = Recovery(opening, self._journal.note)

    @workflow.run
    async def run(self, opening: Opening) -> IncidentReport:
        """Handle the incident; whatever happens, close with a report that says what is known."""
        try:
            result = await self._handle(opening)
        except Aborted:
            result = Ending.ABORTED
        except asyncio.CancelledError:
            result = self._cancelled()
        except ActivityError as error:
            result = self._cancelled() if is_cancelled_exception(error) else self._failed(error)
        return await self._close(result)

    def _failed(self, error: ActivityError) -> Ending:
        self._journal.note(failure(error).line)
        return Ending.UNRESOLVED

    def _cancelled(self) -> Ending:
        """Whoever may cancel workflows may stop this one: that changes nothing but the ending."""
        self._journal.note("cancelled through Temporal")
        return Ending.ABORTED

    async def _handle(self, opening: Opening) -> Ending:
        journal = self._journal
        surveyed = await self._survey("what is there to look at")
        journal.requester = orders.requester(
            opening, workflow.info().workflow_id, journal.opened_at, surveyed.approvers
        )
        self._read_unread(surveyed)

        if not await self._readable(surveyed):
            return Ending.UNRESOLVED
        self._stop_if_aborted()

        surveyed, synthesis = await self._diagnose(surveyed)
        conclusion = synthesis.diagnosis.conclusion
        if conclusion is not Conclusion.ROOT_CAUSE or opening.recording:
            return await self._without_remedy(conclusion)

        await self._remedy(surveyed, synthesis)
        if self._recovery.by_itself is not None:
            journal.verification = self._recovery.by_itself
            return Ending.SELF_RECOVERED
        outcomes = tuple(result.outcome for result in journal.results.values())
        if not touched(outcomes):
            return ending(outcomes, None)

        if not await self._readable(surveyed) or self._grant is None:
            return ending(outcomes, None)
        self._enter(Phase.VERIFYING)
        journal.verification = await self._recovery.verify(synthesis, self._grant)
        return ending(outcomes, journal.verification)

    async def _survey(self, why: str) -> steps.Surveyed:
        opening = self._opening
        survey = steps.SurveyIn(incident_id=opening.incident_id, tenant=opening.tenant, recording=opening.recording)
        self._surveyed = await call(steps.SURVEY, survey, why)
        return self._surveyed

    def _alert_at(self, surveyed: steps.Surveyed) -> datetime:
        """When the alert was raised; a recording is read as of that moment."""
        raised = surveyed.as_of if self._opening.recording else self._opening.alert.starts_at
        return raised if raised.tzinfo else raised.replace(tzinfo=UTC)

    # -- access -------------------------------------------------------------------------------------------------

    async def _readable(self, surveyed: steps.Surveyed) -> bool:
        """Whether there is READ access for what comes next: the shift's, ours from before, or a human's new yes."""
        if self._opening.recording:
            if not self._journal.gates.all():
                question = Question(kind=AccessKind.READ, references=(), purpose="read a recording")
                self._journal.gates.not_required(self._request(surveyed, question))
            return True
        await self._take_offered(surveyed)
        if self._read_until is not None and workflow.now() + SHORTEST_READ < self._read_until:
            return True
        return await self._ask_to_read(surveyed)

    def _readable_now(self) -> str | None:
        """The READ grant in use, while it lasts: asking for nothing would add to the history of a gate that waits."""
        return self._grant if self._read_until is not None and workflow.now() < self._read_until else None

    async def _ask_to_read(self, surveyed: steps.Surveyed) -> bool:
        journal = self._journal
        self._enter(Phase.AWAITING_READ_APPROVAL)
        purpose, references = "investigate the whole estate", surveyed.read_references
        question = Question(kind=AccessKind.READ, references=references, purpose=purpose)
        request = self._request(surveyed, question)
        digest = journal.gates.open(request, surveyed.policy.read)
        gate = await self._answer(digest)
        if gate.status is not GateStatus.APPROVED:
            journal.note(f"READ access was not granted: {gate.status}")
            return False
        await call(
            steps.OPEN_GRANT,
            steps.OpenGrantIn(request=requests.request_text(request), decisions=gate.decisions),
            "open the READ grant",
        )
        self._grant, self._read_until, self._shared = digest, request.grant_expires_at, False
        return True

    async def _take_offered(self, surveyed: steps.Surveyed) -> None:
        """Use the grant that the shift offers, if people who may approve have signed it and it lasts longer."""
        offered, self._offered = self._offered, []
        for each in offered:
            gate = approvals.shared(each, self._opening.tenant, surveyed.approvers, workflow.now())
            if not gate or (self._read_until is not None and gate.request.grant_expires_at <= self._read_until):
                continue
            try:
                opened = steps.OpenGrantIn(request=each.request, decisions=each.decisions)
                await call(steps.OPEN_GRANT, opened, "is the shift's READ grant open")
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                self._journal.note(failure(error).line)
                continue
            self._journal.gates.shared(gate)
            self._grant, self._read_until, self._shared = gate.request_digest, gate.request.grant_expires_at, True

    def _request(self, surveyed: steps.Surveyed, question: Question) -> AccessRequest:
        opening = self._opening
        asker = Asker(
            tenant=opening.tenant,
            incident_id=opening.incident_id,
            requester=self._journal.requester,
            severity=opening.severity,
            answer_by_s=opening.answer_by_s,
            grant_s=opening.grant_s,
        )
        book = Rulebook(policy=surveyed.policy, policy_digest=surveyed.policy_digest, ledger_id=surveyed.ledger_id)
        measured_by = None
        if question.kind is AccessKind.WRITE and self._read_until is not None and not self._shared:
            # Recovery is measured under the READ grant: a yes has to leave time for that. A shift renews its own.
            measured_by = self._read_until - options(steps.VERIFY).schedule_to_close
        return ask(asker, book, question, workflow.now(), str(workflow.uuid4()), measured_by)

    async def _answer(self, digest: str) -> Gate:
        self._show()
        gate = await self._journal.gates.answered(digest, stop=self._over)
        self._stop_if_aborted()
        self._show()
        return gate

    # -- investigation ------------------------------------------------------------------------------------------

    async def _diagnose(self, surveyed: steps.Surveyed) -> tuple[steps.Surveyed, steps.Synthesis]:
        """Look, and conclude; while that is inconclusive, look again one ring wider."""
        opening, journal = self._opening, self._journal
        place = (opening.region, opening.service)
        ring = first_ring(opening.severity, surveyed.topology, *place)
        while True:
            self._enter(Phase.INVESTIGATING)
            surveyed = await self._survey("what is there now: time may have passed")
            self._stop_if_aborted()
            findings = await self._investigate(surveyed, roster(surveyed.topology, ring, *place))
            self._stop_if_aborted()
            self._enter(Phase.SYNTHESIZING)
            synthesis = await self._synthesize(surveyed, findings)
            journal.diagnosed(synthesis)
            self._stop_if_aborted()
            if synthesis.diagnosis.conclusion is not Conclusion.INCONCLUSIVE or ring is Ring.ESTATE:
                return surveyed, synthesis
            journal.note(f"{journal.coverage.planned} agents ({ring.name.lower()}): {synthesis.diagnosis.summary}")
            ring = ring.next
            if not await self._readable(surveyed):
                return surveyed, synthesis

    async def _synthesize(self, surveyed: steps.Surveyed, findings: tuple[FindingRef, ...]) -> steps.Synthesis:
        task = steps.SynthesizeIn(
            incident_id=self._opening.incident_id,
            tenant=self._opening.tenant,
            findings=findings,
            coverage=self._journal.coverage,
            quorum=surveyed.quorum,
            as_of=surveyed.as_of,
            alert_at=self._alert_at(surveyed),
            recording=self._opening.recording,
        )
        return await call(steps.SYNTHESIZE, task, f"{len(findings)} findings into one diagnosis")

    async def _investigate(self, surveyed: steps.Surveyed, agents: tuple[Agent, ...]) -> tuple[FindingRef, ...]:
        """Fan out the roster; the findings of those that answered. Those that did not are counted."""
        self._journal.planned(agents)
        self._show()
        found = await asyncio.gather(*(self._agent(agent, surveyed) for agent in agents))
        self._show()
        return tuple(finding for finding in found if finding is not None)

    async def _agent(self, agent: Agent, surveyed: steps.Surveyed) -> FindingRef | None:
        task = steps.InvestigateIn(
            incident_id=self._opening.incident_id,
            tenant=self._opening.tenant,
            agent=agent,
            as_of=surveyed.as_of,
            alert_at=self._alert_at(surveyed),
            grant_digest=self._grant,
            recording=self._opening.recording,
            wave=self._journal.wave.number,
        )
        finding: FindingRef | None = None
        try:
            finding = await start(steps.INVESTIGATE, task, f"{agent.specialist} · {agent.service} · {agent.region}")
            self._journal.agent_completed(agent, finding)
        except asyncio.CancelledError:
            # An answer that comes together with the cancel is given up for it. Raised, this would end the wave before
            # its other agents are counted.
            self._journal.agent_failed(agent, coverage.AgentOutcome.SKIPPED, CANCELLED)
        except ActivityError as error:
            why = failure(error)
            if is_cancelled_exception(error):
                self._journal.agent_failed(agent, coverage.AgentOutcome.SKIPPED, CANCELLED)
            else:
                self._journal.agent_failed(agent, coverage.failure(why.code, why.timed_out), why.line)
        workflow.set_current_details(self._journal.details())
        return finding

    # -- remediation --------------------------------------------------------------------------------------------

    async def _remedy(self, surveyed: steps.Surveyed, synthesis: steps.Synthesis) -> None:
        """Ask for every action at once, so that a human sees the whole plan; then run the approved ones in order."""
        journal = self._journal
        self._enter(Phase.AWAITING_WRITE_APPROVAL)
        for action in synthesis.actions:
            question = Question(
                kind=AccessKind.WRITE,
                references=action.references,
                purpose=action.reason,
                intent=Intent(parameters=action.parameters, target=action.target),
                evidence_digest=synthesis.evidence_digest,
            )
            request = self._request(surveyed, question)
            rule = surveyed.policy.rule(action.parameters.type)
            journal.asked(action, rule.risk, journal.gates.open(request, rule.verdict))
        # Both: whoever opens an incident says what its alert measured, and a worker signs what the cause does.
        symptoms = (*self._opening.symptoms, *synthesis.symptoms)
        looking = asyncio.create_task(self._recovery.look_out(symptoms, grant=self._readable_now))
        try:
            await self._run_approved(synthesis.actions)
        finally:
            looking.cancel()

    async def _run_approved(self, actions: tuple[Action, ...]) -> None:
        journal = self._journal
        for action in actions:
            self._enter(Phase.AWAITING_WRITE_APPROVAL)
            gate = await self._answer(journal.asked_for[action.action_id])
            if self._recovery.by_itself is not None:
                return
            if gate.status is not GateStatus.APPROVED:
                journal.decided_against(action, gate)
                continue
            self._recovery.stop_looking()
            self._enter(Phase.REMEDIATING)
            journal.acted(action, gate, await self._apply(action, gate))
            self._show()
            self._stop_if_aborted()

    async def _without_remedy(self, conclusion: Conclusion) -> Ending:
        """Close without a cause to remedy: the alert's own figures, measured now, have the last word."""
        measured = await self._recovery.measure(self._opening.symptoms, self._grant)
        self._journal.verification = measured
        if measured is not None and not measured.recovered and conclusion is Conclusion.NO_FAULT:
            self._journal.note("the agents found nothing, but the alert's own figures are still out of range")
        return without_cause(conclusion, measured, figures=bool(self._opening.symptoms))

    async def _apply(self, action: Action, gate: Gate) -> ActionResult:
        """Run one approved action. A remedy that cannot report leaves an outcome that nobody has established."""
        task = steps.RemediateIn(request=requests.request_text(gate.request), decisions=gate.decisions)
        remedy = start(steps.REMEDIATE, task, f"{action.parameters.type} · {markdown(action.target.identity)}")
        try:
            return await self._uninterrupted(remedy)
        except ActivityError as error:
            why = failure(error)
            return ActionResult(
                action_digest=requests.action_digest(action.parameters, action.target),
                request_digest=gate.request_digest,
                outcome=Outcome.UNKNOWN,
                detail=why.line,
                error_code=why.code,
            )

    async def _uninterrupted(self, remedy: workflow.ActivityHandle[ActionResult]) -> ActionResult:
        """Wait for a remedy to its end: interrupted, nobody would know what it did. A cancel counts as an abort."""
        try:
            return await asyncio.shield(remedy)
        except asyncio.CancelledError:
            self._journal.note("cancelled through Temporal during an action; stopped after it")
            self._aborted = True
            return await remedy

    # -- closing ------------------------------------------------------------------------------------------------

    async def _close(self, result: Ending) -> IncidentReport:
        self._journal.close(result)
        self._show()
        report = self._journal.report()
        try:
            written = await call(steps.REPORT, steps.ReportIn(report=report), "write the report")
        except ActivityError as error:
            self._journal.note(failure(error).line)
        else:
            self._journal.written(written.path)
        return self._journal.report()

    def _over(self) -> bool:
        """Whether there is nothing left to wait for a human for."""
        return self._aborted or self._recovery.by_itself is not None

    def _stop_if_aborted(self) -> None:
        if self._aborted:
            raise Aborted

    def _enter(self, phase: Phase) -> None:
        self._journal.enter(phase)
        self._show()

    def _show(self) -> None:
        """Keep the Temporal UI and the search attributes saying what is going on."""
        workflow.set_current_details(self._journal.details())
        if changed := self._journal.changed_search_attributes():
            workflow.upsert_search_attributes(changed)

    # -- messages -----------------------------------------------------------------------------------------------

    @workflow.signal(name=names.SIGNAL_DECIDE)
    def decide(self, decision: Decision) -> None:
        """A person's yes or no. Only its signature counts; who sent the signal does not."""
        if self._surveyed is None:
            self._journal.gates.unknown_decisions += 1
        else:
            self._journal.gates.receive(decision, self._surveyed.approvers)

    @workflow.signal(name=names.SIGNAL_ABORT)
    def abort(self, order: AbortOrder) -> None:
        """A person's signed order to stop at the next safe point."""
        if self._surveyed is None:
            self._unread.append((order, workflow.now()))
        else:
            self._obey(order, workflow.now(), self._surveyed)

    @workflow.signal(name=names.SIGNAL_GRANT, unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)
    async def renewed(self, grant: SharedGrant) -> None:
        """The shift's renewed READ grant. It counts only as its signatures do, and while the broker has it open."""
        surveyed = self._surveyed
        if surveyed is not None and not approvals.shared(
            grant, self._opening.tenant, surveyed.approvers, workflow.now()
        ):
            return
        if len(self._offered) < OFFERS_KEPT:
            self._offered.append(grant)
        if surveyed is not None and self._shared:
            # A failure that leaves a handler would end the incident.
            with contextlib.suppress(ActivityError):
                await self._take_offered(surveyed)

    def _obey(self, order: AbortOrder, received_at: datetime, surveyed: steps.Surveyed) -> None:
        info = workflow.info()
        verdict = orders.abort(order, self._opening.incident_id, info.run_id, received_at, surveyed.approvers)
        self._journal.ordered(verdict)
        self._aborted = self._aborted or verdict.honoured

    def _read_unread(self, surveyed: steps.Surveyed) -> None:
        """Hear the orders that came before the list of approvers did."""
        unread, self._unread = self._unread, []
        for order, received_at in unread:
            self._obey(order, received_at, surveyed)
        self._stop_if_aborted()

    @workflow.query(name=names.QUERY_STATUS)
    def status(self) -> IncidentStatus:
        """One look."""
        return self._journal.status()

    @workflow.query(name=names.QUERY_PROGRESS)
    def progress(self) -> IncidentProgress:
        """All that moves."""
        return self._journal.progress()

    @workflow.query(name=names.QUERY_APPROVALS)
    def approvals(self) -> list[PendingApproval]:
        """What waits for a human, as the exact text whose digest is to be signed."""
        return self._journal.approvals()

    @workflow.query(name=names.QUERY_ACCESS)
    def access(self) -> list[AccessEntry]:
        """Every question to a human so far, and its answer."""
        return self._journal.access()

    @workflow.query(name=names.QUERY_REPORT)
    def report(self) -> IncidentReport:
        """The report as far as it has come."""
        return self._journal.report()
