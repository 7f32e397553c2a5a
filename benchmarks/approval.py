"""From a human's yes to the remedy: the decision's signal event to the remedy's ActivityTaskStarted, by history."""

from contextlib import AsyncExitStack

from benchmarks.histories import approval_to_remedy_s
from benchmarks.lab import Lab
from benchmarks.row import Row
from benchmarks.stack import run_incident, running, start_workers
from benchmarks.statistics import median
from oncall.cli.children import python

NAME = "approval"
BUDGET_MS = 150.0
APPROVALS = 12
NOTE = (
    "one incident of 150 agents: real server, real orchestrate worker and real SSH signatures; a benchmark worker "
    "takes the remedies and answers at once; approved one by one, each after the one before has ended"
)


async def run(lab: Lab) -> list[Row]:
    """Many approvals in one incident, and those of the live incident through the real remediate worker."""
    live = [1000 * seconds for seconds in approval_to_remedy_s((await lab.live()).history)]
    nowhere = {**lab.info, "telemetry": str(lab.state)}
    async with AsyncExitStack() as cleanup:
        stack = await cleanup.enter_async_context(running(lab.state / NAME, nowhere, roles=("orchestrate",)))
        command = python("benchmarks.answers", str(stack.state / "approvers"), str(APPROVALS))
        await start_workers(stack, {"oncall": command}, cleanup)
        closed = await run_incident(stack)
    many = [1000 * seconds for seconds in approval_to_remedy_s(closed.history)]
    assert len(many) == APPROVALS, f"{len(many)} of {APPROVALS} remedies were started"
    rows = [Row(NAME, "approval → remedy, p50", median(many), "ms", BUDGET_MS, NOTE)]
    if live:
        note = "the live incident, real remediate worker and remedies; estate broken and running beside it"
        rows.append(Row(NAME, "approval → remedy, live incident", median(live), "ms", BUDGET_MS, note))
    return rows
