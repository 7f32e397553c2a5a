"""The bare arm: Temporal doing nothing but carry 150 tasks, in the process layout of `worker.py`.

`python -m benchmarks.fanout workflows|activities REFS`: one process polls for the workflow, another for the no-op
activity, with the slots and the sandbox of the real workers. REFS holds the results to hand out (JSON by agent), so
that both directions carry what a real incident's carry.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from oncall.model import steps
    from oncall.model.agent import Agent
    from oncall.model.finding import FindingRef
    from oncall.model.frozen import Frozen
    from oncall.model.topology import Topology
    from oncall.rules.roster import roster
    from workflows.options import options

WORKFLOW = "bare-fanout"
ACTIVITY = "bare-noop"
WORKFLOWS_QUEUE = "bench-bare-workflows"
ACTIVITIES_QUEUE = "bench-bare-activities"


class FanoutIn(Frozen):
    """What a fan-out needs to make the same inputs as an incident: its roster and the common fields."""

    topology: Topology
    incident_id: str
    tenant: str
    as_of: datetime
    recording: str


class FanoutOut(Frozen):
    """Seconds from the workflow task that schedules to the one that has every result, and how many there were."""

    seconds: float
    results: int


@workflow.defn(name=WORKFLOW)
class BareFanout:
    """150 activities and nothing else."""

    @workflow.run
    async def run(self, fanout: FanoutIn) -> FanoutOut:
        """Schedules one activity per agent of the roster and awaits them all."""
        started = workflow.now()
        found = await asyncio.gather(*(self._one(fanout, agent) for agent in roster(fanout.topology)))
        return FanoutOut(seconds=(workflow.now() - started).total_seconds(), results=len(found))

    async def _one(self, fanout: FanoutIn, agent: Agent) -> FindingRef:
        task = steps.InvestigateIn(
            incident_id=fanout.incident_id,
            tenant=fanout.tenant,
            agent=agent,
            as_of=fanout.as_of,
            alert_at=fanout.as_of,
            grant_digest=None,
            recording=fanout.recording,
        )
        chosen = options(steps.INVESTIGATE)
        found: FindingRef = await workflow.execute_activity(
            ACTIVITY,
            task,
            task_queue=ACTIVITIES_QUEUE,
            result_type=FindingRef,
            start_to_close_timeout=chosen.start_to_close,
            schedule_to_close_timeout=chosen.schedule_to_close,
            retry_policy=chosen.retry,
            summary=f"{agent.specialist} · {agent.service} · {agent.region}",
        )
        return found


def key_of(agent: Agent | FindingRef) -> str:
    """The agent's place as one string."""
    return f"{agent.specialist}/{agent.service}/{agent.region}"


def noop(path: Path) -> Callable[..., Any]:
    """The activity that hands out the results in `path`."""
    texts = json.loads(path.read_text(encoding="utf-8"))
    refs = {key: FindingRef.model_validate(value) for key, value in texts.items()}

    @activity.defn(name=ACTIVITY)
    async def answer(task: steps.InvestigateIn) -> FindingRef:
        return refs[key_of(task.agent)]

    return answer


async def _serve(part: str, refs: Path) -> None:
    from oncall.temporal.client import connect
    from oncall.temporal.sandbox import runner
    from oncall.temporal.serve import ACTIVITY_SLOTS

    client = await connect()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    carries_workflows = part == "workflows"
    async with Worker(
        client,
        task_queue=WORKFLOWS_QUEUE if carries_workflows else ACTIVITIES_QUEUE,
        workflows=[BareFanout] if carries_workflows else [],
        activities=[] if carries_workflows else [noop(refs)],
        workflow_runner=runner(),
        max_concurrent_activities=ACTIVITY_SLOTS,
    ):
        print(json.dumps({"ready": True}), flush=True)
        await stop.wait()


def main() -> int:
    """Polls until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout")
    parser.add_argument("part", choices=["workflows", "activities"])
    parser.add_argument("refs", type=Path)
    arguments = parser.parse_args()
    # As a module of its own name: Temporal refuses workflows that are defined in __main__.
    from benchmarks import fanout

    asyncio.run(fanout._serve(arguments.part, arguments.refs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
