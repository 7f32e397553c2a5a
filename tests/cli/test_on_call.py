"""`on-call` as a person types it: one question, a look at what is watched, a signed stop that hands over, and one line
for everything that is wrong. Scripted looks on a real Temporal server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from oncall.model import names
from oncall.temporal import incidents
from oncall.temporal.embedded import binary
from oncall.temporal.everywhere import running
from oncall.temporal.search import ensure_search_attributes
from tests.cli.desk import Desk, Evidenced
from tests.people import Person, approvers
from tests.workflows.conftest import people, working
from tests.workflows.scripted import trouble

__all__ = ["people"]  # a fixture of the workflows' tests

pytestmark = pytest.mark.timeout(120)
People = tuple[Person, Person]


@pytest.fixture
async def env() -> AsyncIterator[WorkflowEnvironment]:
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=binary(), data_converter=pydantic_data_converter
    ) as started:
        await ensure_search_attributes(started.client)
        yield started


async def on_call(desk: Desk, key: Path, team: str = "primary") -> str:
    """Go on call and approve; the shift's READ request."""
    begun = await desk("on-call", "start", "--team", team, "--key", str(key), "--json")
    assert begun.code == 0, begun.stderr
    (request,) = json.loads(begun.stdout)["waiting_for"]
    assert (await desk("approve", request, "--key", str(key))).code == 0
    return str(request)


async def test_a_shift_from_going_on_call_to_the_hand_over(
    env: WorkflowEnvironment, people: People, tmp_path: Path
) -> None:
    alice, mallory = people
    script = Evidenced(approvers(alice), state=tmp_path / "desk" / "state")
    async with working(env.client, script):
        desk = Desk(tmp_path / "desk", env, alice)
        idle = await desk("on-call", "status")
        assert (idle.code, idle.stdout.splitlines()) == (
            0,
            ["nobody is on call; `oncall on-call start` begins a shift"],
        )

        begun = await desk("on-call", "start", "--key", str(alice.key))
        assert "READ access" in begun.stdout
        assert "shift-primary, opened by alice" in begun.stdout
        assert "next: `oncall approve req-" in begun.stderr
        again = await desk("on-call", "start", "--key", str(alice.key), "--json")
        assert (again.code, json.loads(again.stdout)["already"]) == (0, True)
        listed = json.loads((await desk("approvals", "--json")).stdout)["approvals"]
        (asked,) = listed
        assert (asked["incident_id"], asked["kind"], asked["severity"]) == ("shift-primary", "read", None)
        assert (await desk("approve", asked["request_id"], "--key", str(alice.key))).code == 0

        now = await desk("on-call", "status")
        assert "team primary: watching, started by alice" in now.stdout
        assert "watches    4 services every 30 s" in now.stdout
        assert "left, approved by alice" in now.stdout

        # What a person opens meanwhile needs no second yes.
        opened = await desk("trigger", "--anomaly", "slow", "--severity", "low", "--key", str(alice.key), "--json")
        incident_id = json.loads(opened.stdout)["incident_id"]
        async with asyncio.timeout(20):
            while len(waiting := (await incidents.status(env.client, incident_id)).waiting_for) < 2:
                await asyncio.sleep(0.1)
        report = await incidents.report(env.client, incident_id)
        assert [entry.decision for entry in report.access] == ["approved", "pending", "pending"]
        assert report.access[0].approvers == ("alice",)

        refused = await desk("on-call", "stop", "--key", str(mallory.key))
        assert refused.code == 1
        assert "the shift goes on: the key" in refused.stderr
        ended = await desk("on-call", "stop", "--key", str(alice.key), "--reason", "asleep", "--json")
        assert ended.code == 0
        last = json.loads(ended.stdout)
        assert (last["phase"], last["ended"]) == ("off", "ended by alice: asleep")
        # A person opened that incident, not the shift: it goes on, and still asks.
        assert await running(env.client, names.INCIDENT_WORKFLOW, names.SHIFT_WORKFLOW) == [incident_id]
        assert (await incidents.status(env.client, incident_id)).waiting_for == waiting
        off = await desk("on-call", "status", "--team", "primary", "--json")
        assert (off.code, json.loads(off.stdout)["phase"]) == (0, "off")


async def test_what_the_shift_opened_is_handed_over(env: WorkflowEnvironment, people: People, tmp_path: Path) -> None:
    alice, _ = people
    script = Evidenced(approvers(alice), state=tmp_path / "desk" / "state", groups=(trouble(),))
    async with working(env.client, script):
        desk = Desk(tmp_path / "desk", env, alice)
        await on_call(desk, alice.key, "night")
        async with asyncio.timeout(20):
            while not (found := await running(env.client, names.INCIDENT_WORKFLOW)):
                await asyncio.sleep(0.1)
            while len((await incidents.status(env.client, found[0])).waiting_for) < 2:
                await asyncio.sleep(0.1)
        ended = await desk("on-call", "stop", "--team", "night", "--key", str(alice.key))
        assert ended.code == 0
        assert f"hands over {found[0]} awaiting_write_approval, waits for req-" in ended.stdout
        twice = await desk("on-call", "stop", "--team", "night", "--key", str(alice.key), "--json")
        assert (twice.code, json.loads(twice.stdout)["phase"]) == (0, "off")


async def test_what_is_wrong_is_one_line(env: WorkflowEnvironment, people: People, tmp_path: Path) -> None:
    alice, _ = people
    desk = Desk(tmp_path / "desk", env, alice)
    team = await desk("on-call", "start", "--team", "../etc", "--key", str(alice.key))
    assert (team.code, "a team is up to 40" in team.error) == (2, True)
    absent = await desk("on-call", "stop", "--team", "nobody", "--key", str(alice.key))
    assert (absent.code, "shift-nobody does not exist" in absent.error) == (2, True)
    elsewhere = Desk(tmp_path / "elsewhere", env, alice, configured=False)
    unconfigured = await elsewhere("on-call", "start", "--key", str(alice.key))
    assert (unconfigured.code, "oncall.yaml" in unconfigured.error) == (2, True)
    # No worker: the shift has begun, and that is all that can be said.
    silent = await desk("on-call", "start", "--key", str(alice.key))
    assert (silent.code, "is a worker running" in silent.error) == (3, True)
    down = Desk(tmp_path / "desk", env, variables={"TEMPORAL_ADDRESS": "127.0.0.1:1"})
    unreachable = await down("on-call", "status")
    assert (unreachable.code, "no Temporal server answers" in unreachable.error) == (3, True)
    await env.client.get_workflow_handle("shift-primary").terminate("gone")
    gone = await desk("on-call", "status", "--team", "primary")
    assert (gone.code, "was terminated from outside" in gone.error) == (1, True)
