"""The reusable gate: pauses a workflow durably until a human has decided, or the deadline has passed.

Guarantee: a gate that opened is answered at most once, by a signature over its digest. Failure mode: a decision that
does not verify is recorded on the gate and the wait goes on.
"""

import contextlib
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow

from oncall.model.access import AccessRequest, Approvers, Decision, DecisionOutcome, GateStatus
from oncall.model.incident import Gate
from oncall.model.policy import Verdict
from oncall.rules import approvals


class Gates:
    """The gates of one workflow, by request digest, in the order they opened."""

    def __init__(self, before: tuple[Gate, ...] = ()) -> None:
        self._gates = {gate.request_digest: gate for gate in before}
        self.unknown_decisions = 0

    def all(self) -> tuple[Gate, ...]:
        """Every gate, oldest first."""
        return tuple(self._gates.values())

    def get(self, digest: str) -> Gate | None:
        """The gate of that request digest, if it is known."""
        return self._gates.get(digest)

    def pending(self) -> tuple[Gate, ...]:
        """The gates that wait for a human."""
        return tuple(gate for gate in self._gates.values() if gate.status is GateStatus.PENDING)

    def open(self, request: AccessRequest, verdict: Verdict) -> str:
        """Open a gate and return its request digest."""
        gate = approvals.open_gate(request, verdict, workflow.now())
        self._gates[gate.request_digest] = gate
        return gate.request_digest

    def not_required(self, request: AccessRequest) -> None:
        """Record a request that needs nobody's answer."""
        gate = approvals.not_required(request, workflow.now())
        self._gates[gate.request_digest] = gate

    def shared(self, gate: Gate) -> None:
        """Record a gate that people answered elsewhere: the shift's."""
        self._gates[gate.request_digest] = gate

    def receive(self, decision: Decision, approvers: Approvers) -> DecisionOutcome:
        """Apply a decision that a signal brought."""
        gate = self._gates.get(decision.request_digest)
        if gate is None:
            self.unknown_decisions += 1
            return DecisionOutcome.UNKNOWN_REQUEST
        gate, outcome = approvals.receive(gate, decision, approvers, workflow.now())
        self._gates[gate.request_digest] = gate
        return outcome

    def withdraw_pending(self, why: str = approvals.INCIDENT_OVER) -> None:
        """Settle what nobody has answered, and need not any more."""
        for gate in self.pending():
            self._gates[gate.request_digest] = approvals.withdraw(gate, workflow.now(), why)

    def expire_due(self) -> None:
        """Settle what nobody has answered in time."""
        for gate in self.pending():
            if workflow.now() >= gate.request.answer_by:
                self._gates[gate.request_digest] = approvals.expire(gate, workflow.now())

    async def answered(self, digest: str, stop: Callable[[], bool]) -> Gate:
        """Wait until the gate is decided, its deadline has passed, or `stop` says so; then return it as it stands."""
        gate = self._gates[digest]
        remaining = gate.request.answer_by - workflow.now()
        if gate.status is GateStatus.PENDING and remaining > timedelta(0):
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._gates[digest].status is not GateStatus.PENDING or stop(),
                    timeout=remaining,
                    timeout_summary=f"answer {gate.request_id} by {gate.request.answer_by:%H:%M:%S} UTC",
                )
        if self._gates[digest].status is GateStatus.PENDING and not stop():
            self._gates[digest] = approvals.expire(self._gates[digest], workflow.now())
        return self._gates[digest]
