"""Contract: SIGTERM to every worker, in each phase of an incident, is nothing that the incident notices. Each worker
ends by itself with exit code 0 within its grace period, whatever it was doing or had just been given; no attempt of any
step fails, times out or is repeated; and the incident ends as it would have.

One incident is disturbed in every phase. In phases that pass in a moment the worker is frozen first, so that the step
is given to it before it knows; the order to stop is the first thing that it then hears.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

from oncall.cli.deciding import make_decision
from oncall.cli.opening import make_opening
from oncall.cli.rehearsal import ANOMALY, CALM_TIMEOUT_S, DemoApprover
from oncall.cli.stack import ROLES, Stack, running_stack
from oncall.cli.symptom import Entrances
from oncall.config import load_config
from oncall.model.action import Outcome
from oncall.model.alert import Severity
from oncall.model.errors import Retryable
from oncall.model.incident import Ending, PendingApproval
from oncall.model.steps import INVESTIGATE, OPEN_GRANT, REMEDIATE, REPORT, SURVEY, SYNTHESIZE, VERIFY, Step
from oncall.temporal import gates, incidents
from oncall.temporal.roles import Role
from oncall.temporal.serve import DRAIN, LAST_TASKS_S
from tests.temporal.workers import PATIENCE_S, POLL_S, Stopped, Task, Workers, attempts, given, pending, until

SEED = 11
SUFFERING_S = 8.0
CLOSE_S = 120.0
AT_WORK_S = 2.0
AGENTS = 150
PHASES = (
    "received",
    "awaiting read approval",
    "opening the grant",
    "investigating",
    "synthesizing",
    "awaiting write approval",
    "given a remedy",
    "remediating",
    "verifying",
    "writing the report",
)

FAILED = (
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
)


@dataclass
class Disturbed:
    """One incident, and what became of the workers that were told to stop during it, by phase."""

    stack: Stack
    workers: Workers
    key: Path
    incident_id: str
    run_id: str = ""
    stopped: dict[str, list[Stopped]] = field(default_factory=dict)

    async def until(self, met: Callable[[list[Task]], bool]) -> None:
        """Waits until the incident's pending activities are as asked for."""
        await until(self.stack.client, self.incident_id, met)

    async def given(self, *steps: Step[Any, Any]) -> None:
        """Waits until a worker was given one of these steps."""
        await given(self.stack.client, self.incident_id, *steps)

    async def replace(self, phase: str, start: Sequence[str] = ROLES) -> None:
        """Tells every worker to stop, and starts new ones for the roles of `start`."""
        self.stopped[phase] = await self.workers.replace(ROLES, start)

    async def waiting(self, count: int) -> tuple[PendingApproval, ...]:
        """What waits for a human, once that many requests do."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    found = await gates.approvals(self.stack.client, self.incident_id)
                except Retryable:
                    continue  # its worker was only just started
                if len(found) >= count:
                    return found
                await asyncio.sleep(POLL_S)

    async def approve(self, requests: tuple[PendingApproval, ...]) -> None:
        """A person's signed yes to each."""
        for request in requests:
            decision = await asyncio.to_thread(make_decision, request, True, "test", self.key)
            await gates.decide(self.stack.client, self.incident_id, decision)


async def until_the_grant_is_open(at: Disturbed) -> None:
    """Received, awaiting READ approval, opening the grant."""
    await at.given(SURVEY)
    await at.replace("received")
    (read,) = await at.waiting(1)
    await at.replace("awaiting read approval")
    await at.workers.freeze(Role.INVESTIGATE)
    await at.approve((read,))
    await at.given(OPEN_GRANT)
    await at.replace("opening the grant")


async def until_there_is_a_diagnosis(at: Disturbed) -> None:
    """Investigating, in the middle of the swarm; and synthesizing."""
    await at.until(lambda tasks: 0 < sum(task.step == INVESTIGATE.name for task in tasks) < AGENTS)
    # No workflow goes on meanwhile, so that the synthesis finds a worker that is frozen.
    await at.replace("investigating", start=(Role.INVESTIGATE, Role.REMEDIATE))
    await at.until(lambda tasks: not tasks)
    await at.workers.freeze(Role.INVESTIGATE)
    await at.workers.start((Role.ORCHESTRATE,))
    await at.given(SYNTHESIZE)
    await at.replace("synthesizing")


async def until_all_is_remedied(at: Disturbed) -> None:
    """Awaiting WRITE approval; and remediating: an action that the worker was just given, and one that it is at."""
    flag, kill = await at.waiting(2)
    await at.replace("awaiting write approval")
    await at.workers.freeze(Role.REMEDIATE)
    await at.approve((flag,))
    await at.given(REMEDIATE)
    await at.replace("given a remedy")
    # Only now: a worker that leaves may be given the next one as well, and be done with it before it is gone.
    await at.approve((kill,))
    await at.given(REMEDIATE)
    await at.replace("remediating")


async def until_it_is_reported(at: Disturbed) -> None:
    """Verifying; and writing the report."""
    await at.given(VERIFY)
    await asyncio.sleep(AT_WORK_S)
    await at.replace("verifying")
    while True:
        await at.given(VERIFY)
        await at.workers.freeze(Role.ORCHESTRATE)
        await at.until(lambda tasks: not tasks)
        await at.workers.freeze(Role.INVESTIGATE)
        at.workers.thaw(Role.ORCHESTRATE)
        await at.given(VERIFY, REPORT)
        if any(task.step == REPORT.name for task in await pending(at.stack.client, at.incident_id)):
            break
        # It was not the last look.
        at.workers.thaw(Role.INVESTIGATE)
    await at.replace("writing the report")


@pytest.mark.timeout(400)
async def test_an_incident_does_not_notice_that_its_workers_are_told_to_stop_in_every_phase(tmp_path: Path) -> None:
    approver = DemoApprover(tmp_path / "state")
    async with running_stack(tmp_path / "state", SEED, approver.enrol, lambda *_: None) as stack:
        running = dict(zip(ROLES, stack.children[1:], strict=True))
        workers = Workers(stack.client, stack.config.parent, stack.state / "logs", running)
        try:
            await Entrances(stack.telemetry).calm(CALM_TIMEOUT_S)
            fault = await stack.estate.inject("cascading_failure", SEED)
            await asyncio.sleep(SUFFERING_S)
            at = await opened(stack, workers, approver.key)
            await until_the_grant_is_open(at)
            await until_there_is_a_diagnosis(at)
            await until_all_is_remedied(at)
            await until_it_is_reported(at)
            report = await incidents.result(stack.client, at.incident_id, at.run_id, CLOSE_S)
            expected = await stack.estate.truth(fault)
            history = await stack.client.get_workflow_handle(at.incident_id).fetch_history()
        finally:
            await workers.stop()
    assert {phase: Counter(one.role for one in stopped) for phase, stopped in at.stopped.items()} == {
        phase: Counter(ROLES) for phase in PHASES
    }
    every = [one for stopped in at.stopped.values() for one in stopped]
    assert {one.code for one in every} == {0}, at.stopped
    assert max(one.seconds for one in every) < DRAIN.total_seconds() + LAST_TASKS_S
    kinds = Counter(event.event_type for event in history.events)
    assert [kinds[kind] for kind in FAILED] == [0] * len(FAILED)
    assert attempts(history) == {1}
    assert report.status == Ending.RESOLVED, report.model_dump_json(indent=1)
    assert (report.coverage.planned, report.coverage.completed) == (AGENTS, AGENTS)
    assert [action.outcome for action in report.actions] == [Outcome.SUCCEEDED] * 2
    assert report.diagnosis is not None
    assert report.diagnosis.root_cause is not None
    assert report.diagnosis.root_cause.service == expected["service"]
    assert report.files.report is not None
    assert Path(report.files.report).exists()


async def opened(stack: Stack, workers: Workers, key: Path) -> Disturbed:
    """A new incident, whose first step is given to a frozen worker."""
    labels = {"run": secrets.token_hex(4)}
    opening = make_opening(load_config(stack.config), ANOMALY, Severity.CRITICAL, "errors", None, None, key, labels)
    await workers.polling(Role.ORCHESTRATE)
    await workers.freeze(Role.INVESTIGATE)
    running = await incidents.open_incident(stack.client, opening)
    return Disturbed(stack, workers, key, running.incident_id, running.run_id)
