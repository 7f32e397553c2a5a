"""Requests to 1Password per incident: with references and workers, never with agents.

Two incidents on a calm live estate, each with workers that hold no secret yet: one over the whole estate, one over a
fifth of its services in every region. The regions are the same, so the references are the same; the agents are not.
"""

import json
from pathlib import Path

from benchmarks.lab import Estate, Lab
from benchmarks.row import Row
from benchmarks.stack import run_incident, running
from benchmarks.statistics import median
from oncall.cli.symptom import Entrances

NAME = "secrets"
FEW_SERVICES = 2
CALM_TIMEOUT_S = 120.0


async def run(lab: Lab) -> list[Row]:
    """Requests at 150 and at 30 agents, and what one agent more costs."""
    estate = await lab.estate()
    lab.say("waiting for a calm baseline")
    await Entrances(estate.telemetry).calm(CALM_TIMEOUT_S)
    few, many = await _one(lab, estate, FEW_SERVICES), await _one(lab, estate, None)
    references = many.references
    note = (
        f"one investigate worker that starts without secrets, {references} references, {many.counted_by_vault} "
        "requests by the vault's own log; a lookup by names costs 3 requests, a value is kept for the worker's life"
    )
    extra = (many.requests - few.requests) / (many.agents - few.agents)
    return [
        Row(NAME, f"1Password requests, {few.agents} agents", median([float(few.requests)]), "", note=note),
        Row(NAME, f"1Password requests, {many.agents} agents", median([float(many.requests)]), "", note=note),
        Row(NAME, "1Password requests per further agent", median([extra]), "", 0.0, note),
    ]


class _Counted:
    """One incident: its agents, its references, its requests as the report says and as the vault counted."""

    def __init__(self, agents: int, references: int, requests: int, counted_by_vault: int) -> None:
        self.agents = agents
        self.references = references
        self.requests = requests
        self.counted_by_vault = counted_by_vault


async def _one(lab: Lab, estate: Estate, services: int | None) -> _Counted:
    name = "all" if services is None else "few"
    info = estate.info
    if services is not None:
        info = {**info, "telemetry": str(_subset(estate.telemetry, lab.state / "subset", services))}
    log = estate.telemetry.parent / "connect-requests.jsonl"
    async with running(lab.state / f"{NAME}-{name}", info) as stack:
        before = _lines(log)
        report = (await run_incident(stack)).report
        counted = _lines(log) - before
    references = sum(len(entry.references) for entry in report.access if entry.approvers)
    lab.say(
        f"{report.coverage.completed}/{report.coverage.planned} agents, {references} references, "
        f"{report.usage.secret_requests} requests ({counted} by the vault's log), ended {report.status}"
    )
    return _Counted(report.coverage.planned, references, report.usage.secret_requests, counted)


def _subset(telemetry: Path, folder: Path, services: int) -> Path:
    """The same telemetry with a catalogue of `services` services per region."""
    folder.mkdir()
    catalogue = json.loads((telemetry / "catalogue.json").read_text(encoding="utf-8"))
    kept = sorted({place["service"] for place in catalogue["services"]})[:services]
    catalogue["services"] = [place for place in catalogue["services"] if place["service"] in kept]
    catalogue["calls"] = [call for call in catalogue["calls"] if call["caller"] in kept and call["callee"] in kept]
    (folder / "catalogue.json").write_text(json.dumps(catalogue), encoding="utf-8")
    for kind in ("metrics", "logs", "spans"):
        (folder / kind).symlink_to(telemetry / kind, target_is_directory=True)
    return folder


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0
