"""An activity worker that answers every step at once, so that only Temporal and the workflow take time.

`python -m benchmarks.answers APPROVERS ACTIONS`: the policy is the embedded stack's, the approvers are those in
APPROVERS, and the synthesis asks for ACTIONS remedies.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.worker import Worker

from activities.implements import implements
from oncall.cli.stack import POLICY
from oncall.config import load_approvers
from oncall.model import steps
from oncall.model.access import AccessKind, Grant
from oncall.model.action import Action, ActionResult, DisableFlag, Outcome, Risk, Target
from oncall.model.agent import Specialist
from oncall.model.diagnosis import Conclusion, Diagnosis, RootCause
from oncall.model.finding import FindingRef, Health
from oncall.model.names import Queue, agent_uri
from oncall.model.policy import Policy
from oncall.model.topology import Instance, Topology
from oncall.model.verification import Verification
from oncall.temporal.client import connect
from oncall.temporal.serve import ACTIVITY_SLOTS
from oncall.trust import requests

REGIONS = ("eu-west-1", "us-east-1", "us-west-2")
TOPOLOGY = Topology(
    regions=REGIONS,
    services=tuple(Instance(region=region, service=f"service-{n}") for region in REGIONS for n in range(10)),
    calls=(),
)
CAUSE = RootCause(
    region=REGIONS[0], service="service-0", specialist=Specialist.DATABASE, cause="a benchmark", confidence=1.0
)


def action(number: int) -> Action:
    """The n-th remedy to be approved."""
    flag = f"flag-{number}"
    return Action(
        action_id=f"act-{number}",
        parameters=DisableFlag(region=REGIONS[0], flag=flag, expected_version=1),
        target=Target(kind="flag", identity=f"{REGIONS[0]}/{flag}"),
        risk=Risk.LOW,
        reversible=True,
        references=("op://Infrastructure-Write/config-service/credential",),
        reason="a benchmark",
        observations=(),
        manual_steps=(),
    )


class Answers:
    """Every step, answered without work."""

    def __init__(self, approvers: Path, actions: int) -> None:
        self._approvers = load_approvers(approvers)
        self._policy = Policy.model_validate(POLICY)
        self._actions = actions

    @implements(steps.SURVEY)
    async def survey(self, task: steps.SurveyIn) -> steps.Surveyed:
        """An estate of 150 agents."""
        return steps.Surveyed(
            topology=TOPOLOGY,
            policy=self._policy,
            policy_digest=requests.policy_digest(self._policy),
            approvers=self._approvers,
            ledger_id="ledger-bench",
            read_references=("op://Infrastructure/k8s-prod-readonly/credential",),
            quorum=0.8,
            as_of=datetime.now(UTC),
        )

    @implements(steps.OPEN_GRANT)
    async def open_grant(self, task: steps.OpenGrantIn) -> Grant:
        """A grant that opens nothing."""
        request = requests.parse_request(task.request)
        digest = requests.request_digest(request)
        return Grant(
            grant_id=requests.grant_id(digest),
            request_digest=digest,
            kind=AccessKind.READ,
            references=request.references,
            holder="bench",
            not_before=request.not_before,
            expires_at=request.grant_expires_at,
        )

    @implements(steps.INVESTIGATE)
    async def investigate(self, task: steps.InvestigateIn) -> FindingRef:
        """A finding of the usual size."""
        agent = task.agent
        return FindingRef(
            agent=agent_uri(task.tenant, agent.region, task.incident_id, agent.specialist, agent.service, 1),
            specialist=agent.specialist,
            service=agent.service,
            region=agent.region,
            health=Health.HEALTHY,
            score=0.0,
            digest="sha256:" + "0" * 64,
            signature="0" * 88,
        )

    @implements(steps.SYNTHESIZE)
    async def synthesize(self, task: steps.SynthesizeIn) -> steps.Synthesis:
        """A cause, and the actions to be approved."""
        diagnosis = Diagnosis(
            conclusion=Conclusion.ROOT_CAUSE,
            root_cause=CAUSE,
            abstained=False,
            summary="a benchmark",
            ranked=(),
            claims=(),
        )
        actions = tuple(action(number) for number in range(self._actions))
        digest = "sha256:" + "1" * 64
        return steps.Synthesis(
            incident_id=task.incident_id, diagnosis=diagnosis, actions=actions, observations=(), evidence_digest=digest
        )

    @implements(steps.REMEDIATE)
    async def remediate(self, task: steps.RemediateIn) -> ActionResult:
        """An effect that nobody made."""
        request = requests.parse_request(task.request)
        assert request.intent is not None
        return ActionResult(
            action_digest=requests.action_digest(request.intent.parameters, request.intent.target),
            request_digest=requests.request_digest(request),
            outcome=Outcome.SUCCEEDED,
            verified=True,
        )

    @implements(steps.VERIFY)
    async def verify(self, task: steps.VerifyIn) -> Verification:
        """Recovered."""
        return Verification(recovered=True, improved=True, checks=())

    @implements(steps.REPORT)
    async def report(self, task: steps.ReportIn) -> steps.Written:
        """Written nowhere."""
        return steps.Written(path="/dev/null")

    def on(self, queue: Queue) -> list[Callable[..., Any]]:
        """The implementations of one queue's steps."""
        if queue is Queue.REMEDIATE:
            return [self.remediate]
        return [self.survey, self.open_grant, self.investigate, self.synthesize, self.verify, self.report]


async def _serve(answers: Answers) -> None:
    client = await connect()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    investigating, remediating = (
        Worker(client, task_queue=queue, activities=answers.on(queue), max_concurrent_activities=ACTIVITY_SLOTS)
        for queue in (Queue.INVESTIGATE, Queue.REMEDIATE)
    )
    async with investigating, remediating:
        print(json.dumps({"ready": True}), flush=True)
        await stop.wait()


def main() -> int:
    """Polls until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers")
    parser.add_argument("approvers", type=Path)
    parser.add_argument("actions", type=int)
    arguments = parser.parse_args()
    asyncio.run(_serve(Answers(arguments.approvers, arguments.actions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
