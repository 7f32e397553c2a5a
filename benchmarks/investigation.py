"""The investigation phase of 150 agents over a recording, beside what it consists of.

Three arms per round, one after the other: a bare Temporal fan-out with the same payloads (A), the same agents' work
without Temporal (B), and the phase of a real incident through the real workers (C). B and C read a copy of the
recording that no process has read before, so that every run reads its telemetry cold.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.testing import ActivityEnvironment

from activities.implements import STEP_ATTRIBUTE
from benchmarks import fanout
from benchmarks.lab import Lab
from benchmarks.recording import link_copy, starts_at
from benchmarks.row import Row
from benchmarks.stack import TENANT, Stack, phase_seconds, run_incident, running, start_workers
from benchmarks.statistics import median, ratio
from oncall.cli.children import python
from oncall.config import load_config
from oncall.model.finding import FindingRef
from oncall.model.incident import Phase
from oncall.model.steps import INVESTIGATE, InvestigateIn
from oncall.model.topology import Topology
from oncall.rules.roster import roster
from oncall.telemetry.catalogue import read_catalogue
from oncall.temporal.roles import Activities, Role, activities_of

NAME = "investigation"
_PAUSE_S = 0.3
NOTE = (
    "interleaved rounds A, B, C on one server, one discarded before; A and C take both times from workflow time; "
    "every run of B and C reads a copy of the recording under a name that no process has opened before (cold window)"
)


async def run(lab: Lab) -> list[Row]:
    """The three arms and the two ratios that have a budget."""
    recording = await lab.recording()
    topology = read_catalogue(recording / "catalogue.json")
    agents = len(roster(topology))
    bare, plain, swarm = [], [], []
    async with AsyncExitStack() as cleanup:
        stack = await cleanup.enter_async_context(running(lab.state / NAME, lab.info, lab.recordings))
        first = await run_incident(stack, link_copy(recording, lab.recordings / "first"))
        refs = stack.state / "refs.json"
        found = finding_refs(first.history)
        assert len(found) == agents, f"{len(found)} of {agents} agents completed over the recording"
        refs.write_text(json.dumps({fanout.key_of(ref): ref.model_dump(mode="json") for ref in found}))
        commands = {
            f"bare-{part}": python("benchmarks.fanout", part, str(refs)) for part in ("workflows", "activities")
        }
        await start_workers(stack, commands, cleanup)
        config = load_config(stack.config / "investigate.yaml")
        apart = config.model_copy(update={"state": stack.state / "plain"})
        apart.state.mkdir()
        activities = await cleanup.enter_async_context(activities_of(Role.INVESTIGATE, apart))
        for number in range(lab.runs + 1):
            names = {arm: link_copy(recording, lab.recordings / f"round-{number}-{arm}") for arm in ("plain", "swarm")}
            await asyncio.sleep(_PAUSE_S)
            a = await _bare(stack, topology, recording, names["swarm"])
            await asyncio.sleep(_PAUSE_S)
            b = await _plain(activities, topology, recording, names["plain"])
            await asyncio.sleep(_PAUSE_S)
            closed = await run_incident(stack, names["swarm"])
            completed = closed.report.coverage.completed
            assert completed == agents, f"only {completed} of {agents} agents completed: not the work to be measured"
            c = phase_seconds(closed.report, Phase.INVESTIGATING)
            lab.say(f"round {number}: bare {a:.2f} s, plain {b:.2f} s, swarm {c:.2f} s")
            if number:
                bare.append(a)
                plain.append(b)
                swarm.append(c)
            lab.keep(closed)
    return [
        Row(NAME, f"A: bare Temporal fan-out, {agents} no-ops", median(bare), "s", note=NOTE),
        Row(NAME, f"B: the {agents} agents' work, asyncio.gather", median(plain), "s", note=NOTE),
        Row(NAME, f"C: investigation phase, {agents} agents", median(swarm), "s", note=NOTE),
        Row(NAME, "C / (A + B)", ratio(swarm, bare, plain), "×", 1.3),
        Row(NAME, "C / A", ratio(swarm, bare), "×", 4.0),
    ]


def finding_refs(history: WorkflowHistory) -> list[FindingRef]:
    """The results of the investigate step, as they stand in a history."""
    scheduled = {
        event.event_id
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name == INVESTIGATE.name
    }
    completed = [event.activity_task_completed_event_attributes for event in history.events]
    return [
        FindingRef.model_validate_json(done.result.payloads[0].data)
        for done in completed
        if done.scheduled_event_id in scheduled
    ]


async def _bare(stack: Stack, topology: Topology, recording: Path, name: str) -> float:
    fanned: fanout.FanoutOut = await stack.client.execute_workflow(
        fanout.WORKFLOW,
        fanout.FanoutIn(
            topology=topology,
            incident_id=f"bench-{name}",
            tenant=TENANT,
            as_of=starts_at(recording),
            recording=name,
        ),
        id=f"bare-{name}",
        task_queue=fanout.WORKFLOWS_QUEUE,
        result_type=fanout.FanoutOut,
    )
    return fanned.seconds


async def _plain(activities: Activities, topology: Topology, recording: Path, name: str) -> float:
    [investigate] = [one for one in activities if getattr(one, STEP_ATTRIBUTE) is INVESTIGATE]
    as_of = starts_at(recording)
    tasks = [
        InvestigateIn(
            incident_id=f"bench-{name}",
            tenant=TENANT,
            agent=agent,
            as_of=as_of,
            alert_at=as_of,
            grant_digest=None,
            recording=name,
        )
        for agent in roster(topology)
    ]
    # The environment gives the activity its context (attempt 1) and nothing else: no server, no queue.
    environment = ActivityEnvironment()
    started = time.perf_counter()
    await asyncio.gather(*(environment.run(investigate, task) for task in tasks))
    return time.perf_counter() - started
