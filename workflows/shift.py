"""The shift workflow: one team's time on call, from the READ approval to the hand-over.

It asks for READ access once, looks at an interval, opens one incident per problem as an abandoned child that carries
the grant, follows each to its end, renews the grant with a new approval, and hands over what is open when it ends.
Guarantee: incidents outlive it, whatever happens to it. Failure mode: without a grant it watches nothing, and says so.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import NoReturn

from temporalio import workflow
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import (
    ActivityError,
    FailureError,
    RetryState,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from oncall.model import names, steps
    from oncall.model.access import Decision, GateStatus, SharedGrant
    from oncall.model.errors import ErrorCode
    from oncall.model.incident import Gate, PendingApproval
    from oncall.model.names import Queue, SearchAttribute
    from oncall.model.opening import Opening
    from oncall.model.report import AccessEntry
    from oncall.model.shift import Look, Problem, ShiftStatus, StopOrder
    from oncall.model.shift_state import ShiftIn
    from oncall.rules import orders, reporting, watching
    from oncall.trust import requests
    from workflows.call import call, failure
    from workflows.logbook import Logbook
    from workflows.options import SURVEY_AGAIN

UNREAD_KEPT = 100
"""Orders to stop that are kept until it is known who may give one; a flood must not fill the memory."""

EVENTS_PER_RUN = 3_000
"""Events after which a run hands over to the next; what is under way adds less than the thousand left to 4,096."""

ENDS_A_SHIFT = frozenset(
    {
        ErrorCode.GRANT_UNKNOWN,
        ErrorCode.GRANT_REVOKED,
        ErrorCode.NOT_AN_APPROVER,
        ErrorCode.SIGNATURE_REFUSED,
        ErrorCode.POLICY_FORBIDS,
        ErrorCode.LEDGER_FOREIGN,
    }
)
"""What a look is refused with when there is no READ access any more; whatever else fails may pass. That the grant has
expired is not among them: the clock says so too, and a renewal may have been approved during that look."""

CANCELLED = "cancelled through Temporal"


@workflow.defn(name=names.SHIFT_WORKFLOW)
class ShiftWorkflow:
    """One team's shift. Its result is its last status."""

    @workflow.init
    def __init__(self, arg: ShiftIn) -> None:
        self._opening = arg.opening
        # Anybody may start a shift: only the run before it may say what it knew.
        self._log = Logbook(arg.opening, arg.state if workflow.info().continued_run_id else None)
        self._unread: list[tuple[StopOrder, datetime]] = []
        self._stopped: str | None = None

    @workflow.run
    async def run(self, arg: ShiftIn) -> ShiftStatus:
        """Be on call until it ends; the last status says why it did, and what it leaves to people."""
        try:
            ended = await self._on_call()
        except asyncio.CancelledError:
            ended = CANCELLED
        except ActivityError as error:
            ended = CANCELLED if is_cancelled_exception(error) else failure(error).line
        with contextlib.suppress(ActivityError):
            await self._follow()
        self._log.end(ended)
        self._show()
        return self._log.status()

    async def _on_call(self) -> str:
        """Until there is a reason to end: that reason."""
        log = self._log
        if log.surveyed is None:
            log.surveyed = await self._survey()
            log.requester = orders.shift_requester(
                self._opening, workflow.info().workflow_id, log.started_at, log.surveyed.approvers
            )
        self._read_unread(log.surveyed)
        if log.grant is None and (refused := await self._go_on_call()):
            return refused
        while True:
            if ended := await self._until_next_look():
                return ended
            if ended := await self._look():
                return ended
            self._show()

    async def _survey(self, within: timedelta | None = None) -> steps.Surveyed:
        task = steps.SurveyIn(incident_id=self._opening.shift_id, tenant=self._opening.tenant)
        return await call(steps.SURVEY, task, "what is there to watch, and who may approve", within)

    # -- access -------------------------------------------------------------------------------------------------

    async def _go_on_call(self) -> str | None:
        """Ask for READ access once; why there is none, or None."""
        log = self._log
        asked = log.question()
        digest = asked.request_digest if asked else log.ask(renewal=False)
        self._show()
        gate = await log.gates.answered(digest, stop=self._called_away)
        if gate.status is GateStatus.APPROVED:
            return await self._use(gate)
        if gate.status is GateStatus.PENDING and self._stopped is None:
            self._hand_over()
        return self._stopped or _refusal("READ access", gate)

    async def _use(self, gate: Gate, within: timedelta | None = None) -> str | None:
        """Open the approved grant: every reference of it has to resolve. Why it cannot be used, or None.

        `within` is for a shift that has a grant: when that is not enough time it looks again first.
        """
        text = requests.request_text(gate.request)
        task = steps.OpenGrantIn(request=text, decisions=gate.decisions)
        try:
            await call(steps.OPEN_GRANT, task, "open the READ grant", within)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            if within is not None and error.retry_state is RetryState.TIMEOUT:
                self._log.note(failure(error).line)
                return None
            return failure(error).line
        self._log.granted(gate, SharedGrant(request=text, decisions=gate.decisions))
        self._show()
        return None

    async def _keep_grant(self) -> str | None:
        """Renew the grant before it ends. Why there is none any more, or None."""
        log = self._log
        log.gates.expire_due()
        gate = log.question()
        if gate is not None and gate.status is GateStatus.APPROVED:
            if refused := await self._use(gate, within=SURVEY_AGAIN):
                return f"the renewed READ grant cannot be used: {refused}"
            if log.question() is None:
                await self._hand_grant_on()
        elif gate is not None and gate.status is GateStatus.DENIED:
            return _refusal("renewal", gate)
        elif log.renewal_due():
            try:
                log.surveyed = await self._survey(within=SURVEY_AGAIN)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                # The grant in use is good for a while yet: what is known of the policy from before has to do.
                log.note(failure(error).line)
            log.ask(renewal=True)
            self._show()
        if log.grant_over():
            return f"the READ grant ended at {log.expires_at:%Y-%m-%d %H:%M:%S} UTC and was not renewed"
        return None

    async def _hand_grant_on(self) -> None:
        """Let the incidents that run go on under the renewed grant. It is worth no more there than its signatures."""
        for problem in self._log.problems:
            if problem.running and problem.incident_id is not None:
                handle = workflow.get_external_workflow_handle(problem.incident_id)
                # One that has closed meanwhile needs none.
                with contextlib.suppress(FailureError):
                    await handle.signal(names.SIGNAL_GRANT, self._log.grant)

    # -- watching -----------------------------------------------------------------------------------------------

    async def _until_next_look(self) -> str | None:
        """Wait for the next look, in a rhythm that no look's own duration shifts. Why the shift ends, or None."""
        log = self._log
        while True:
            if self._stopped is not None:
                return self._stopped
            # Here, because nothing can arrive between the two: what only this run knows must not be handed over.
            if self._full():
                self._hand_over()
            if ended := await self._keep_grant():
                return ended
            pause = min(log.next_look_at, log.next_duty_at()) - workflow.now()
            if workflow.now() >= log.next_look_at:
                log.schedule_next_look()
                return None
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    self._called_for, timeout=max(pause, timedelta(0)), timeout_summary="until the next look"
                )

    def _called_for(self) -> bool:
        gate = self._log.question()
        return self._called_away() or (gate is not None and gate.status in (GateStatus.APPROVED, GateStatus.DENIED))

    def _called_away(self) -> bool:
        return self._stopped is not None or self._full()

    async def _look(self) -> str | None:
        """One look, and what follows from it. Why the shift ends, or None."""
        log = self._log
        ended, _ = await asyncio.gather(self._observe(), self._follow())
        if ended is not None:
            return ended
        for problem in watching.admitted(log.problems, self._opening.max_incidents):
            await self._open(problem)
        return None

    async def _observe(self) -> str | None:
        log, opening = self._log, self._opening
        assert log.grant_digest is not None
        task = steps.ObserveIn(shift_id=opening.shift_id, tenant=opening.tenant, grant_digest=log.grant_digest)
        try:
            observed = await call(steps.OBSERVE, task, "look")
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            why = failure(error)
            if why.code in ENDS_A_SHIFT:
                return f"READ access is gone: {why.line}"
            log.blind(why.line)
            return None
        seen = Look(as_of=observed.as_of, services=observed.services, groups=len(observed.groups), blind=observed.blind)
        log.looked(seen, observed.groups)
        return None

    async def _follow(self) -> None:
        """How the incidents stand, as Temporal has it: what ran before a continue-as-new is followed all the same."""
        log = self._log
        keys = tuple(
            steps.IncidentKey(incident_id=problem.incident_id, run_id=problem.run_id)
            for problem in log.problems
            if problem.running and problem.incident_id is not None
        )
        if not keys:
            log.followed = ()
            return
        try:
            followed = await call(steps.FOLLOW, steps.FollowIn(incidents=keys), f"how {len(keys)} incidents stand")
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            log.note(failure(error).line)
            return
        log.follow(followed.incidents)

    async def _open(self, problem: Problem) -> None:
        """Give a problem its incident; the one that runs there already, if one does."""
        log, opening = self._log, self._opening
        alert = watching.alert_of(problem.group)
        incident_id = watching.incident_id(problem.group)
        incident = Opening(
            incident_id=incident_id,
            tenant=opening.tenant,
            anomaly_type=problem.group.trouble,
            severity=problem.group.severity,
            message=watching.summary(problem.group),
            region=problem.group.region,
            service=problem.group.service,
            alert=alert,
            opened_at=workflow.now(),
            answer_by_s=opening.incident_answer_by_s,
            grant_s=opening.incident_grant_s,
            grant=log.grant,
            symptoms=tuple(sighting.symptom for sighting in problem.group.sightings),
        )
        values = {SearchAttribute.SEVERITY: str(incident.severity), SearchAttribute.ANOMALY: incident.anomaly_type}
        try:
            child = await workflow.start_child_workflow(
                names.INCIDENT_WORKFLOW,
                incident,
                id=incident_id,
                task_queue=Queue.ORCHESTRATE,
                parent_close_policy=ParentClosePolicy.ABANDON,
                cancellation_type=ChildWorkflowCancellationType.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=f"{incident.severity} {incident.anomaly_type}",
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
                ),
            )
        except WorkflowAlreadyStartedError:
            log.joined(problem)
        else:
            # How it ends is asked of Temporal: here, a failed child would be an exception that nobody awaits.
            child.add_done_callback(lambda done: done.cancelled() or done.exception())
            log.opened(problem, child.first_execution_run_id)

    def _full(self) -> bool:
        info = workflow.info()
        return info.is_continue_as_new_suggested() or info.get_current_history_length() >= EVENTS_PER_RUN

    def _hand_over(self) -> NoReturn:
        """Go on in a new run, under the same id."""
        workflow.continue_as_new(ShiftIn(opening=self._opening, state=self._log.hand_over()))

    def _show(self) -> None:
        """Keep the Temporal UI and the search attributes saying what is going on."""
        workflow.set_current_details(self._log.details())
        if self._log.phase_changed():
            workflow.upsert_search_attributes(
                [SearchAttributeKey.for_keyword(SearchAttribute.STATUS).value_set(str(self._log.phase))]
            )

    # -- messages -----------------------------------------------------------------------------------------------

    @workflow.signal(name=names.SIGNAL_DECIDE)
    def decide(self, decision: Decision) -> None:
        """A person's yes or no. Only its signature counts; who sent the signal does not."""
        # Nothing is asked before the first survey, which every later run inherits.
        if self._log.surveyed is not None:
            self._log.gates.receive(decision, self._log.surveyed.approvers)

    @workflow.signal(name=names.SIGNAL_STOP)
    def stop(self, order: StopOrder) -> None:
        """A person's signed order to end the shift."""
        if self._log.surveyed is not None:
            self._obey(order, workflow.now(), self._log.surveyed)
        elif len(self._unread) < UNREAD_KEPT:
            self._unread.append((order, workflow.now()))

    def _obey(self, order: StopOrder, received_at: datetime, surveyed: steps.Surveyed) -> None:
        verdict = orders.stop(order, self._opening.shift_id, self._log.run_id, received_at, surveyed.approvers)
        if verdict.honoured:
            self._stopped = self._stopped or verdict.note
        else:
            self._log.refused_order(verdict.note)

    def _read_unread(self, surveyed: steps.Surveyed) -> None:
        """Hear the orders that came before the list of approvers did."""
        unread, self._unread = self._unread, []
        for order, received_at in unread:
            self._obey(order, received_at, surveyed)

    @workflow.query(name=names.QUERY_STATUS)
    def status(self) -> ShiftStatus:
        """One look."""
        return self._log.status()

    @workflow.query(name=names.QUERY_APPROVALS)
    def approvals(self) -> list[PendingApproval]:
        """What waits for a human, as the exact text whose digest is to be signed."""
        return self._log.approvals()

    @workflow.query(name=names.QUERY_ACCESS)
    def access(self) -> list[AccessEntry]:
        """Every question to a human of late, and its answer."""
        return [reporting.access_entry(gate) for gate in self._log.gates.all()]

    @workflow.query(name=names.QUERY_GRANT)
    def shared_grant(self) -> list[SharedGrant]:
        """The READ grant that incidents may use, if there is one now."""
        return self._log.shared()


def _refusal(what: str, gate: Gate) -> str:
    by = f" by {', '.join(gate.approvers)}" if gate.approvers else ""
    reason = f": {gate.reason}" if gate.reason else ""
    return f"{what} was not granted: {gate.status}{by}{reason}"
