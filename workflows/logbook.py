"""What a shift has recorded: all of its workflow's state in one object, handed from run to run.

Times are workflow times, so a replay writes the same logbook.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from temporalio import workflow

from oncall.model.access import AccessKind, GateStatus, SharedGrant
from oncall.model.incident import Gate, PendingApproval
from oncall.model.shift import (
    AlertGroup,
    FollowedIncident,
    GrantStatus,
    IncidentState,
    Look,
    Problem,
    ShiftOpening,
    ShiftPhase,
    ShiftStatus,
)
from oncall.model.shift_state import ShiftState
from oncall.rules import approvals, watching
from oncall.rules.asking import SHORTEST_ANSWER, Asker, Question, Rulebook, ask
from oncall.rules.text import markdown
from oncall.trust import requests
from workflows.gate import Gates

CLOSED_KEPT = 20
"""Closed incidents that the status still names."""

GATES_KEPT = 10
"""Questions to people that are handed to the next run, the newest."""

UNSEEN = 1.5
"""Intervals after which a problem was missed by a look, and not only by the clock."""

NOTES_KEPT = 20
"""Notes kept, the newest: a shift may last for months."""


class Logbook:
    """The record of one shift."""

    def __init__(self, opening: ShiftOpening, before: ShiftState | None) -> None:
        info = workflow.info()
        start = info.workflow_start_time
        state = before or ShiftState(run_id=info.run_id, started_at=start, next_look_at=start)
        self.opening = opening
        self.run_id = state.run_id
        self.started_at = state.started_at
        self.runs = state.runs
        self.surveyed = state.surveyed
        self.requester = state.requester
        self.grant = state.grant
        self.grant_digest = state.grant_digest
        self.expires_at = state.expires_at
        self.gates = Gates(state.gates)
        self.next_look_at = state.next_look_at
        self.last_look = state.last_look
        self.problems = list(state.problems)
        self.followed = state.followed
        self._renew_at = state.renew_at
        self._question = state.question
        self._looks = state.looks
        self._blind_since = state.blind_since
        self._closed = list(state.closed)
        self._opened = state.opened
        self._notes = list(state.notes)
        self._refused = state.refused_orders
        self._last_refusal = state.last_refusal
        self._ended: str | None = None
        self._shown: ShiftPhase | None = None

    def hand_over(self) -> ShiftState:
        """What the next run needs to go on as if it were this one."""
        return ShiftState(
            run_id=self.run_id,
            started_at=self.started_at,
            runs=self.runs + 1,
            surveyed=self.surveyed,
            requester=self.requester,
            grant=self.grant,
            grant_digest=self.grant_digest,
            expires_at=self.expires_at,
            renew_at=self._renew_at,
            question=self._question,
            gates=self.gates.all()[-GATES_KEPT:],
            next_look_at=self.next_look_at,
            last_look=self.last_look,
            looks=self._looks,
            blind_since=self._blind_since,
            problems=tuple(self.problems),
            closed=tuple(self._closed),
            followed=self.followed,
            opened=self._opened,
            notes=tuple(self._notes),
            refused_orders=self._refused,
            last_refusal=self._last_refusal,
        )

    # -- the grant ----------------------------------------------------------------------------------------------

    def ask(self, renewal: bool) -> str:
        """Open the question for READ access; its digest. A renewal is to be answered before the grant in use ends."""
        surveyed, opening, now = self.surveyed, self.opening, workflow.now()
        assert surveyed is not None
        answer_by_s: float = opening.answer_by_s
        if renewal and self.expires_at is not None:
            answer_by_s = (self.expires_at - now).total_seconds()
        asker = Asker(
            tenant=opening.tenant,
            incident_id=opening.shift_id,
            requester=self.requester,
            severity=None,
            answer_by_s=max(1, int(answer_by_s)),
            grant_s=opening.grant_s,
        )
        book = Rulebook(policy=surveyed.policy, policy_digest=surveyed.policy_digest, ledger_id=surveyed.ledger_id)
        purpose = f"team {opening.team} is on call: watch everything, and investigate what goes wrong"
        question = Question(
            kind=AccessKind.READ,
            references=surveyed.read_references,
            purpose=f"go on: {purpose}" if renewal else purpose,
        )
        request = ask(asker, book, question, now, str(workflow.uuid4()))
        self._question = self.gates.open(request, surveyed.policy.read)
        return self._question

    def granted(self, gate: Gate, grant: SharedGrant) -> None:
        """The grant is open and in use."""
        now, expires = workflow.now(), gate.request.grant_expires_at
        self.grant, self.grant_digest, self.expires_at = grant, gate.request_digest, expires
        self._renew_at = expires - min(timedelta(seconds=self.opening.renew_before_s), (expires - now) / 2)
        self._question = None

    def question(self) -> Gate | None:
        """The question for READ access that was asked last, until what it granted is in use."""
        return None if self._question is None else self.gates.get(self._question)

    def renewal_due(self) -> bool:
        """Whether it is time to ask whether to go on: for the first time, or again where a question was given less time
        than the grant in use has."""
        now, asked = workflow.now(), self.question()
        if self._renew_at is None or self.expires_at is None or now >= self.expires_at:
            return False
        if asked is None:
            return now >= self._renew_at
        return asked.status is GateStatus.EXPIRED and now + SHORTEST_ANSWER < self.expires_at

    def grant_over(self) -> bool:
        """Whether the grant in use has ended."""
        return self.expires_at is not None and workflow.now() >= self.expires_at

    def next_duty_at(self) -> datetime:
        """When the grant next needs attention."""
        asked = self.question()
        duties = [self.expires_at, self._renew_at if asked is None else None]
        if asked is not None and asked.status is GateStatus.PENDING:
            duties.append(asked.request.answer_by)
        return min((moment for moment in duties if moment is not None), default=self.next_look_at)

    def shared(self) -> list[SharedGrant]:
        """The grant that incidents may use: none once it or the shift is over."""
        return [] if self.grant is None or self.grant_over() or self._ended else [self.grant]

    # -- what is seen -------------------------------------------------------------------------------------------

    def schedule_next_look(self) -> None:
        """Set the next look one interval on, and further while that is past: missed looks are not made up for."""
        interval = timedelta(seconds=self.opening.interval_s)
        behind = max(0, (workflow.now() - self.next_look_at) // interval)
        self.next_look_at += (behind + 1) * interval

    def looked(self, look: Look, groups: Sequence[AlertGroup]) -> None:
        """A look has worked, and showed `groups`."""
        self.last_look = look
        self._looks += 1
        self.problems = watching.look(self.problems, groups, workflow.now(), self._clear())
        if self._blind_since is not None:
            self.note(f"sees again after {(workflow.now() - self._blind_since).total_seconds():.0f} s")
        self._blind_since = None

    def _clear(self) -> timedelta:
        """How long a problem has to be out of sight to be gone. At a slow rhythm, or when looks failed, it was not
        looked for in the meantime."""
        looked_for = timedelta(seconds=max(self.opening.clear_s, UNSEEN * self.opening.interval_s))
        return looked_for + (timedelta(0) if self._blind_since is None else workflow.now() - self._blind_since)

    def blind(self, why: str) -> None:
        """A look has failed."""
        if self._blind_since is None:
            self._blind_since = workflow.now()
            self.note(f"blind: {why}")

    def follow(self, followed: Iterable[FollowedIncident]) -> None:
        """How the incidents stand."""
        found = tuple(followed)
        for each in found:
            if each.state is IncidentState.CUT_OFF:
                self.note(f"{each.incident_id} was cut off from outside, without a report: {each.summary}")
        running = {(problem.incident_id, problem.opened_at) for problem in self.problems if problem.running}
        self.problems = watching.follow(self.problems, found, workflow.now(), self._clear())
        ended = [problem for problem in self.problems if problem.ending is not None]
        self._closed.extend(problem for problem in ended if (problem.incident_id, problem.opened_at) in running)
        del self._closed[:-CLOSED_KEPT]
        self.followed = tuple(each for each in found if each.state is IncidentState.RUNNING)

    def opened(self, problem: Problem, run_id: str | None) -> None:
        """The problem has its incident."""
        self._opened += 1
        self._began(problem, run_id)

    def joined(self, problem: Problem) -> None:
        """The problem is one that an incident works on already."""
        self.note(f"{watching.incident_id(problem.group)} ran already: joined it")
        self._began(problem, None)

    def _began(self, problem: Problem, run_id: str | None) -> None:
        self.problems = watching.opened(self.problems, problem, run_id, workflow.now())

    def refused_order(self, why: str) -> None:
        """An order to stop did not count. Counted, so that a flood cannot crowd out other notes."""
        self._refused += 1
        self._last_refusal = why

    def note(self, text: str) -> None:
        """Keep a line that people should read. The same again says nothing new, and would crowd out others."""
        if self._notes and self._notes[-1].endswith(f" {text}"):
            return
        self._notes.append(f"{workflow.now():%Y-%m-%d %H:%M:%S} {text}")
        del self._notes[:-NOTES_KEPT]

    def end(self, why: str) -> None:
        """The shift is over; nothing waits for an answer any more."""
        self._ended = why
        self.gates.withdraw_pending(approvals.SHIFT_OVER)

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> ShiftPhase:
        """Where the shift is."""
        if self._ended is not None:
            return ShiftPhase.OFF
        if self.grant is None:
            return ShiftPhase.AWAITING_READ_APPROVAL
        asked = self.question()
        renewing = asked is not None and asked.status in (GateStatus.PENDING, GateStatus.APPROVED)
        return ShiftPhase.RENEWING if renewing else ShiftPhase.WATCHING

    def phase_changed(self) -> bool:
        """Whether the phase is another than when this was last asked: each upsert is an event in history."""
        changed, self._shown = self._shown is not self.phase, self.phase
        return changed

    def approvals(self) -> list[PendingApproval]:
        """What waits for a human."""
        return [
            PendingApproval(
                incident_id=self.opening.shift_id,
                request_id=gate.request_id,
                request_digest=gate.request_digest,
                request=requests.request_text(gate.request),
                action=None,
            )
            for gate in self.gates.pending()
        ]

    def status(self) -> ShiftStatus:
        """One look at the shift."""
        stands = {each.incident_id: each for each in self.followed}
        running = [problem for problem in self.problems if problem.running]
        return ShiftStatus(
            shift_id=self.opening.shift_id,
            team=self.opening.team,
            run_id=self.run_id,
            phase=self.phase,
            requester=self.requester,
            started_at=self.started_at,
            interval_s=self.opening.interval_s,
            grant=self._grant_status(),
            waiting_for=tuple(gate.request_id for gate in self.gates.pending()),
            last_look=self.last_look,
            looks=self._looks,
            blind_since=self._blind_since,
            opened=self._opened,
            open=tuple(stands.get(problem.incident_id or "", _just_opened(problem)) for problem in running),
            queued=tuple(problem.group for problem in watching.queued(self.problems)),
            closed=tuple(self._closed),
            runs=self.runs,
            notes=tuple(self._notes),
            refused_orders=self._refused,
            last_refusal=self._last_refusal,
            ended=self._ended,
        )

    def details(self) -> str:
        """Markdown for the Temporal UI: what it watches, what is open, what waits for whom."""
        status = self.status()
        lines = [f"**{status.phase}** · team {markdown(status.team)}"]
        if status.last_look:
            lines.append(f"last look {status.last_look.as_of:%H:%M:%S} UTC at {status.last_look.services} services")
        if status.grant:
            lines.append(f"grant {status.grant.grant_id} until {status.grant.expires_at:%Y-%m-%d %H:%M:%S} UTC")
        lines.extend(f"waits for an approver: `{request}`" for request in status.waiting_for)
        lines.extend(f"{markdown(each.incident_id)}: {each.status}" for each in status.open)
        lines.extend(f"queued: {markdown(group.region)} {markdown(group.service)}" for group in status.queued)
        if status.ended:
            lines.append(markdown(status.ended))
        return "\n\n".join(lines)

    def _grant_status(self) -> GrantStatus | None:
        if self.grant_digest is None or self.expires_at is None:
            return None
        gate = self.gates.get(self.grant_digest)
        return GrantStatus(
            grant_id=requests.grant_id(self.grant_digest),
            request_digest=self.grant_digest,
            decision=GateStatus.APPROVED,
            approvers=gate.approvers if gate else (),
            expires_at=self.expires_at,
        )


def _just_opened(problem: Problem) -> FollowedIncident:
    return FollowedIncident(
        incident_id=problem.incident_id or "",
        run_id=problem.run_id or "",
        state=IncidentState.RUNNING,
        status="received",
        answered=False,
    )
