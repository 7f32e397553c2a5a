"""Whole incidents on the embedded stack: real estate, real workers, real signatures, the truth asked afterwards.

Each stack serves the scenarios that leave the estate's past as they found it.
"""

import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest

from oncall.cli.output import Output
from oncall.cli.rehearsal import DemoApprover, Rehearsed, rehearse
from oncall.cli.stack import Stack, running_stack
from oncall.cli.story import Story
from oncall.model.access import AccessKind, AccessRequest, GateStatus
from oncall.model.action import Outcome
from oncall.model.alert import Severity
from oncall.model.incident import Ending
from oncall.temporal import incidents
from oncall.temporal.replay import replay

pytestmark = pytest.mark.timeout(240)


@dataclass
class Rehearsal:
    """A running stack and its approver."""

    stack: Stack
    key: Path

    async def run(self, scenario: str, seed: int, ask: Callable[[AccessRequest], bool] = lambda _: True) -> Rehearsed:
        """One scenario from a calm estate to the closed report."""

        async def answer(request: AccessRequest) -> bool:
            return ask(request)

        done = rehearse(self.stack, self.key, scenario, seed, Story(Output(as_json=False)), answer)
        return await self.stack.guarded(done)


@asynccontextmanager
async def rehearsal(state: Path, seed: int) -> AsyncIterator[Rehearsal]:
    """A stack that leaves no process behind."""
    approver = DemoApprover(state)
    before = {process.pid for process in psutil.process_iter()}
    try:
        async with running_stack(state, seed, approver.enrol, lambda *_: None) as stack:
            yield Rehearsal(stack, approver.key)
    finally:
        approver.forget()
    left = [p for p in psutil.process_iter(["name", "cmdline"]) if p.pid not in before and str(state) in str(p.info)]
    assert left == []


def concealed(stack: Stack) -> dict[str, str]:
    """Every concealed field of both vaults: the canaries."""
    found: dict[str, str] = {}
    for token_file in ("connect_read_token_file", "connect_write_token_file"):
        token = Path(stack.estate_info[token_file]).read_text()
        found[token_file] = token
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=stack.estate_info["connect"], headers=headers) as connect:
            for vault in connect.get("/v1/vaults").json():
                for summary in connect.get(f"/v1/vaults/{vault['id']}/items").json():
                    item = connect.get(f"/v1/vaults/{vault['id']}/items/{summary['id']}").json()
                    for field in item["fields"]:
                        if field.get("type") == "CONCEALED":
                            section = field.get("section", {}).get("id", "")
                            found[f"{summary['title']}/{section}/{field['label']}"] = field["value"]
    return found


def forms(secret: str) -> set[bytes]:
    """The ways a secret is usually written down."""
    raw = secret.encode()
    return {
        raw,
        base64.b64encode(raw).rstrip(b"=")[:-1],
        quote(secret, safe="").encode(),
        json.dumps(secret)[1:-1].encode(),
    }


def unwrapped(printed: str) -> bytes:
    """Terminal output with and without the breaks that a panel puts into long words."""
    return (printed + re.sub(r"[\s│]+", "", printed)).encode()


def payloads(node: Any) -> bytes:
    """Every payload of a history's JSON, where they stand in base64, as it was before."""
    if isinstance(node, list):
        return b"\n".join(payloads(item) for item in node)
    if not isinstance(node, dict):
        return b""
    data = node.get("data")
    own = base64.b64decode(data) if "metadata" in node and isinstance(data, str) else b""
    return own + b"\n" + b"\n".join(payloads(item) for item in node.values())


def files(root: Path) -> list[Path]:
    """Everything written below a state folder, but for the estate's own tokens and databases."""
    return [p for p in root.rglob("*") if p.is_file() and (root / "estate") not in p.parents]


async def test_a_false_alarm_touches_nothing_and_a_cascade_is_found_repaired_and_proven(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    async with rehearsal(state, seed=11) as at:
        flags = await at.stack.estate.flags()
        quiet = await at.run("false_alarm", seed=11)
        assert quiet.report.status == Ending.NO_FAULT
        assert [entry.kind for entry in quiet.report.access] == [AccessKind.READ]
        assert quiet.report.actions == ()
        assert await at.stack.estate.flags() == flags

        done = await at.run("cascading_failure", seed=11)
        report, drill = done.report, done.drill
        assert drill["correct"], drill
        assert report.status == Ending.RESOLVED, report.model_dump_json(indent=1)
        # Where a front door fails a little less it is high: the region, and the same services elsewhere.
        assert report.coverage.completed == report.coverage.planned
        assert report.coverage.planned >= (150 if report.severity == Severity.CRITICAL else 70)
        assert sum(drill["runaways"]["before"].values()) > 0
        assert sum(drill["runaways"]["after"].values()) == 0
        assert [entry.type for entry in report.actions] == ["disable_flag", "kill_queries"]
        assert [entry.outcome for entry in report.actions] == [Outcome.SUCCEEDED] * 2
        assert [flag["region"] for flag in drill["flags_disabled"]] == [drill["expected"]["region"]]
        assert report.verification is not None
        bad_before = [c for c in report.verification.checks if c.before is not None and c.before > c.threshold]
        assert bad_before
        assert all(check.ok and check.after is not None for check in report.verification.checks)

        history = await incidents.history_json(at.stack.client, report.incident_id)
        replayed = await replay(history)
        assert replayed.identical, replayed.divergence
        assert replayed.events <= 1_500
        secrets = concealed(at.stack)
        every_claim_is_cited(report.model_dump(mode="json"))
        printed = "".join(capfd.readouterr())
        places = {
            "history": history.encode(),
            "payloads": payloads(json.loads(history)),
            "terminal": unwrapped(printed),
        }
        places |= {str(path): path.read_bytes() for path in files(state)}
    places |= {str(path): path.read_bytes() for path in files(state)}

    assert len(secrets) >= 14
    assert any("temporal.db" in place for place in places)
    assert any(place.endswith("report.html") for place in places)
    # The search itself works: what is no secret is found where it should be.
    known = report.access[0].request_digest.encode()
    assert {"payloads", "terminal"} <= {place for place, data in places.items() if known in data}
    assert any("temporal.db" in place for place, data in places.items() if b"prod-db-readonly" in data)
    leaks = [
        (name, place)
        for name, value in secrets.items()
        for place, data in places.items()
        for form in forms(value)
        if form in data
    ]
    assert leaks == []


def every_claim_is_cited(report: dict[str, Any]) -> None:
    """Invariant 7: each claim names observations, and each is in the report."""
    claims = report["diagnosis"]["claims"]
    assert claims
    for claim in claims:
        assert claim["observations"]
        assert set(claim["observations"]) <= set(report["observations"])


async def test_denying_one_of_two_actions_runs_the_other_and_leaves_manual_steps(tmp_path: Path) -> None:
    def only_the_kill(request: AccessRequest) -> bool:
        return request.intent is None or request.intent.parameters.type == "kill_queries"

    async with rehearsal(tmp_path / "state", seed=3) as at:
        done = await at.run("cascading_failure", seed=3, ask=only_the_kill)
        flag, kill = done.report.actions
        assert (flag.type, flag.outcome) == ("disable_flag", Outcome.DENIED)
        assert flag.manual_steps
        assert kill.outcome in (Outcome.SUCCEEDED, Outcome.FAILED)
        assert kill.before["matching"] > 0
        assert done.drill["flags_disabled"] == []
        # Killing alone relapses: whatever is said must be what was measured.
        verification = done.report.verification
        assert verification is not None
        assert (done.report.status == Ending.RESOLVED) == verification.recovered
        assert [e.decision for e in done.report.access] == [GateStatus.APPROVED, GateStatus.DENIED, GateStatus.APPROVED]
