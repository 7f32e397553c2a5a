"""How much history an incident of 150 agents writes."""

from benchmarks.histories import size_bytes
from benchmarks.lab import Lab
from benchmarks.row import Row
from benchmarks.stack import Closed
from benchmarks.statistics import median

NAME = "history"
EVENTS = 1500
MEGABYTE = 1e6


async def run(lab: Lab) -> list[Row]:
    """Events and bytes, over a recording and of the live incident with all its gates."""
    live = await lab.live()
    return _rows("live", live) + _rows("recording", await lab.recorded())


def _rows(source: str, closed: Closed) -> list[Row]:
    report, history = closed.report, closed.history
    gates = sum(1 for entry in report.access if entry.approvers)
    note = f"the {source} incident: {report.coverage.completed} agents, {gates} gates answered, ended {report.status}"
    events, size = float(len(history.events)), float(size_bytes(history))
    return [
        Row(NAME, f"history, {source}: events", median([events]), "", EVENTS, note),
        Row(NAME, f"history, {source}: size as protobuf", median([size / MEGABYTE]), "MB", 1.0, note),
    ]
