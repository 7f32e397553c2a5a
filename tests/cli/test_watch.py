"""Contract: `watch` tells what happens while it happens, to people, pipes and programs, and outlives what it needs.

It ends when the incident has, with 0 only where nothing is left to a human. A worker or a Temporal server that is away
is called silent and asked again. The terminal is left as it was, whatever ends it.
"""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.implements import implements
from oncall.cli.record import write_record
from oncall.model import names, steps
from oncall.model.incident import Phase
from oncall.model.names import Queue
from oncall.model.opening import Opening
from oncall.model.progress import IncidentProgress
from oncall.temporal.embedded import EmbeddedServer, free_port
from oncall.temporal.sandbox import runner
from oncall.temporal.search import ensure_search_attributes
from tests.cli.command import oncall
from tests.cli.desk import Desk
from tests.cli.test_reports import HOSTILE
from tests.cli.watching import piped, terminal
from tests.people import Person, approvers
from tests.workflows.conftest import Incident, Open, incident, people
from tests.workflows.scripted import Script, opening
from workflows.incident import IncidentWorkflow

__all__ = ["incident", "people"]  # fixtures of the workflows' tests: a real server and scripted steps

People = tuple[Person, Person]
pytestmark = pytest.mark.timeout(180)


@dataclass
class Hostile(Script):
    """Steps whose diagnosis was written by somebody hostile."""

    @implements(steps.SYNTHESIZE)
    async def synthesize(self, task: steps.SynthesizeIn) -> steps.Synthesis:
        synthesis = await super().synthesize(task)
        hostile = synthesis.diagnosis.model_copy(update={"summary": HOSTILE})
        return synthesis.model_copy(update={"diagnosis": hostile})


@dataclass
class Held(Script):
    """Steps that hold the agents back until they are told."""

    hold_investigation: asyncio.Event | None = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Let the agents answer."""
        assert self.hold_investigation is not None
        self.hold_investigation.set()


def hostile(found: Opening) -> Opening:
    """An opening whose anomaly was named by somebody hostile."""
    return found.model_copy(update={"anomaly_type": HOSTILE})


def address(running: Incident) -> str:
    """Where its server listens."""
    return str(running.env.client.service_client.config.target_host)


@asynccontextmanager
async def working(client: Client, script: Script, *queues: Queue) -> AsyncIterator[None]:
    """Workers of these queues, while it lasts."""
    async with AsyncExitStack() as stack:
        for queue in queues:
            workflows = [IncidentWorkflow] if queue is Queue.ORCHESTRATE else []
            worker = Worker(
                client,
                task_queue=queue,
                workflows=workflows,
                activities=script.on(queue),
                workflow_runner=runner(),
            )
            await stack.enter_async_context(worker)
        yield


async def connected(server: EmbeddedServer) -> Client:
    """A client of a server that knows our search attributes."""
    client = await Client.connect(server.address, data_converter=pydantic_data_converter)
    await ensure_search_attributes(client)
    return client


async def begun(client: Client) -> Incident:
    """An incident that nobody works at yet."""
    handle = await client.start_workflow(
        IncidentWorkflow.run, opening("incident-1"), id="incident-1", task_queue=Queue.ORCHESTRATE
    )
    return Incident(WorkflowEnvironment.from_client(client), handle)


async def test_a_program_reads_one_document_per_change_and_the_last_when_it_has_closed(
    incident: Open, people: People, tmp_path: Path
) -> None:
    alice, _ = people
    script = Held(approvers(alice), failing_agents=2)
    running = await incident(script)
    async with piped(tmp_path, address(running), "watch", running.handle.id, "--json") as watch:
        first = await watch.document(lambda seen: bool(seen["waiting"]))
        (read,) = first["waiting"]
        (pending,) = await running.waiting()
        assert (read["request_id"], read["kind"]) == (pending.request_id, "read")
        assert read["what"] == "READ access to 1 references"
        assert read["answer_by"] > read["since"]
        await running.approve(alice)
        looking = await watch.document(lambda seen: seen["phase"] == "investigating" and bool(seen["wave"]["places"]))
        assert [(place["planned"], place["completed"]) for place in looking["wave"]["places"]] == [(2, 0)] * 10
        script.release()
        asked = await watch.document(lambda seen: len(seen["waiting"]) == 2)
        assert asked["waiting"][0]["what"].startswith("WRITE disable_flag region=eu-west-1 flag=order-batch-reads")
        await running.approve(alice, 2)
        lines = await watch.rest()
        assert await watch.code() == 0

    documents: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert all(was != now for was, now in itertools.pairwise(documents))
    assert {frozenset(document) for document in documents} == {
        frozenset((*IncidentProgress.model_fields, "silent_since"))
    }
    last = documents[-1]
    assert (last["phase"], last["status"], last["recovered"], last["silent_since"]) == (
        "closed",
        "resolved",
        True,
        None,
    )
    assert [action["outcome"] for action in last["actions"]] == ["succeeded"] * 2
    assert last["coverage"] | {"completed": 18, "failed": 2} == last["coverage"]
    for name in ("planned", "completed", "failed"):
        assert sum(place[name] for place in last["wave"]["places"]) == last["coverage"][name]
    assert not any(document["closed_at"] for document in documents[:-1])


async def test_a_pipe_carries_plain_lines(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Hostile(approvers(alice), recovered=False), hostile)
    async with piped(tmp_path, address(running), "watch", running.handle.id) as watch:
        line = await watch.until(lambda line: "waits for an approver" in line)
        (read,) = await running.waiting()
        assert f"`oncall approve {read.request_id}`" in line
        await running.approve(alice)
        await running.approve(alice, 2)
        text = "".join(await watch.rest())
        assert await watch.code() == 1  # mitigated is not recovered
        assert await watch.errors() == ""
    assert text.replace("\n", "").isprintable()
    for said in (
        "phase investigating at",
        "agents: 20/20 completed",
        "diagnosis: \\x1b[2J",
        "action disable_flag eu-west-1/order-batch-reads: succeeded",
        "closed: mitigated",
    ):
        assert text.count(said) == 1, said


async def test_a_terminal_shows_bars_and_takes_a_resize(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    script = Held(approvers(alice))
    running = await incident(script, hostile)
    env = {"TEMPORAL_ADDRESS": address(running)}
    async with terminal(tmp_path, env, "watch", running.handle.id) as seen:
        (read,) = await running.waiting()
        asked = await seen.until(f"oncall approve {read.request_id}")
        assert "min" in asked
        assert "\\x1b[2J" in asked
        assert seen.is_open
        assert seen.hides_cursor
        await running.approve(alice)
        wide = await seen.until("0/2")
        assert max(map(len, wide.splitlines())) <= 80
        (row,) = [line for line in wide.splitlines() if line.startswith("eu-west-1")]
        assert row.count("0/2") == 5
        seen.resize(40, 30)
        narrow = await seen.until("eu-west-1 logs")
        assert max(map(len, narrow.splitlines())) <= 40
        assert len(narrow.splitlines()) <= 30
        seen.resize(80, 24)
        script.release()
        await running.approve(alice, 2)
        await seen.until("oncall report")
        assert await seen.code() == 0
        assert seen.is_as_before
        last = "\n".join(seen.screen())
        assert "resolved: recovery was measured" in last
        assert "disable_flag eu-west-1/order-batch-reads: succeeded" in last
    for escape in ("\x1b[2J", "\x1b]", "\x07", "\u202e"):
        assert escape not in seen.shown


async def test_ctrl_c_gives_the_terminal_back_and_says_how_to_look_again(
    incident: Open, people: People, tmp_path: Path
) -> None:
    running = await incident(Script(approvers(people[0])))
    env = {"TEMPORAL_ADDRESS": address(running)}
    async with terminal(tmp_path, env, "watch", running.handle.id) as seen:
        await seen.until("oncall approve")
        seen.press("\x1a")
        async with asyncio.timeout(10):
            while seen.is_open or seen.hides_cursor:
                await asyncio.sleep(0.05)
        seen.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            while not (seen.is_open and seen.hides_cursor):
                await asyncio.sleep(0.05)
        await seen.until("oncall approve")
        seen.press("\x03")
        assert await seen.code() == 1
        assert seen.is_as_before
        assert f"look again with `oncall watch {running.handle.id}`" in "".join(seen.screen())
        assert "error:" not in seen.shown
    assert (await running.status()).phase is Phase.AWAITING_READ_APPROVAL


async def test_a_program_that_is_interrupted_leaves_an_error_document(
    incident: Open, people: People, tmp_path: Path
) -> None:
    running = await incident(Script(approvers(people[0])))
    async with piped(tmp_path, address(running), "watch", running.handle.id, "--json") as watch:
        await watch.document(lambda seen: bool(seen["waiting"]))
        watch.process.send_signal(signal.SIGINT)
        assert json.loads((await watch.rest())[-1])["error"]["code"] == "interrupted"
        assert await watch.code() == 1


async def test_a_reader_that_leaves_ends_it_without_a_word(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    await running.waiting()
    reader, writer = os.pipe()
    async with piped(tmp_path, address(running), "watch", running.handle.id, "--json", stdout=writer) as watch:
        os.close(writer)
        assert (await asyncio.to_thread(os.read, reader, 65536)).startswith(b'{"incident_id"')
        os.close(reader)
        await running.approve(alice)
        assert await watch.code() == 1
        assert await watch.errors() == ""


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[EmbeddedServer]:
    """A server whose database outlives it."""
    server = await EmbeddedServer.start(folder, free_port(0), free_port(0))
    try:
        yield server
    finally:
        await server.stop()


async def test_a_worker_that_is_away_is_waited_for(people: People, tmp_path: Path) -> None:
    alice, _ = people
    async with served(tmp_path / "temporal") as server:
        client = await connected(server)
        script = Script(approvers(alice))
        running = await begun(client)
        others = working(client, script, Queue.INVESTIGATE, Queue.REMEDIATE)
        async with others, piped(tmp_path, server.address, "watch", running.handle.id, "--json") as watch:
            # Nobody has answered yet: what Temporal knows by itself, and no more.
            unknown = await watch.document(lambda seen: seen["silent_since"] is not None)
            assert (unknown["incident_id"], unknown["coverage"], unknown["waiting"]) == (running.handle.id, None, None)
            async with working(client, script, Queue.ORCHESTRATE):
                known = await watch.document(lambda seen: seen["silent_since"] is None)
                assert known["severity"] == "critical"
                await watch.document(lambda seen: bool(seen["waiting"]))
            silent = await watch.document(lambda seen: seen["silent_since"] is not None)
            assert silent["waiting"]  # what is known stays
            async with working(client, script, Queue.ORCHESTRATE):
                await watch.document(lambda seen: seen["silent_since"] is None)
                await running.approve(alice)
                await running.approve(alice, 2)
                assert json.loads((await watch.rest())[-1])["status"] == "resolved"
                assert await watch.code() == 0
            assert "worker.py --role orchestrate" in await watch.errors()
        # One that has closed needs no worker.
        async with piped(tmp_path, server.address, "watch", running.handle.id, "--json") as again:
            (line,) = await again.rest()
            assert json.loads(line)["wave"]["places"]
            assert await again.code() == 0


async def test_a_temporal_server_that_restarts_is_waited_for(people: People, tmp_path: Path) -> None:
    alice, _ = people
    folder, env = tmp_path / "temporal", {"COLUMNS": "80"}
    async with served(folder) as server:
        client = await connected(server)
        env["TEMPORAL_ADDRESS"] = server.address
        async with working(client, Script(approvers(alice)), *Queue):
            running = await begun(client)
            async with terminal(tmp_path, env, "watch", running.handle.id) as seen:
                await seen.until("oncall approve")
                await server.stop()
                # A server takes its time to stop: no second of the silence is sure to be seen.
                down = await seen.until("no answer since")
                assert "oncall approve" in down
                port, ui_port = int(server.address.rpartition(":")[2]), free_port(0)
                server = await EmbeddedServer.start(folder, port, ui_port)
                try:
                    await seen.until_gone("no answer since")
                    await running.approve(alice)
                    await running.approve(alice, 2)
                    await seen.until("oncall report")
                    assert await seen.code() == 0
                    assert seen.is_as_before
                finally:
                    await server.stop()


async def test_the_terminal_may_go_away(incident: Open, people: People, tmp_path: Path) -> None:
    running = await incident(Script(approvers(people[0])))
    env = {"TEMPORAL_ADDRESS": address(running), "TMPDIR": str(tmp_path)}
    async with terminal(tmp_path, env, "watch", running.handle.id) as seen:
        await seen.until("oncall approve")
        seen.hang_up()
        assert await seen.code() == 1
    assert list(tmp_path.glob("oncall-error-*")) == []


async def test_without_an_incident_it_watches_the_one_that_runs(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    await running.waiting()
    desk = Desk(tmp_path, running.env, alice)
    async with piped(tmp_path, address(running), "watch") as watch:
        await watch.until(lambda line: running.handle.id in line)
        other = await begun(running.env.client)
        await other.waiting()
        several = await desk("watch")
        assert several.code == 2
        assert "2 incidents run; name the one to watch" in several.error
        assert running.handle.id in several.error
        assert other.handle.id in several.error
        for one in (running, other):
            await one.decide(alice, (await one.waiting())[0], approved=False)
            await one.report()
        assert await watch.code() == 1
    async with asyncio.timeout(20):
        while "no incident runs" not in (none := await desk("watch")).stderr:
            await asyncio.sleep(0.2)
    assert none.code == 2


async def test_what_cannot_be_watched_is_said_at_once(incident: Open, people: People, tmp_path: Path) -> None:
    running = await incident(Script(approvers(people[0])))
    desk = Desk(tmp_path, running.env)
    unknown = await desk("watch", "incident-nobody-knows", "--json")
    assert unknown.code == 2
    assert unknown.error == "error: incident incident-nobody-knows does not exist"
    assert json.loads(unknown.stdout)["error"]["code"] == "not_found"
    await running.env.client.start_workflow("shift", id="shift-a", task_queue=names.Queue.ORCHESTRATE)
    other = await desk("watch", "shift-a")
    assert (other.code, other.error) == (2, "error: shift-a is a shift, not an incident")
    down = await oncall(tmp_path, "watch", "incident-1", env={"TEMPORAL_ADDRESS": "127.0.0.1:1"})
    assert down.code == 3
    assert "no Temporal server answers at 127.0.0.1:1" in down.error


async def test_one_that_is_ended_from_outside_is_called_so(incident: Open, people: People, tmp_path: Path) -> None:
    running = await incident(Script(approvers(people[0])))
    async with piped(tmp_path, address(running), "watch", running.handle.id, "--json") as watch:
        await watch.document(lambda seen: bool(seen["waiting"]))
        await running.handle.terminate("by hand")
        assert "was terminated from outside" in json.loads((await watch.rest())[-1])["error"]["message"]
        assert await watch.code() == 1


async def test_a_closed_one_is_shown_once_without_another_screen(
    incident: Open, people: People, tmp_path: Path
) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    await running.decide(alice, (await running.waiting())[0], approved=False)
    report = await running.report()
    async with terminal(tmp_path, {"TEMPORAL_ADDRESS": address(running)}, "watch", running.handle.id) as seen:
        assert await seen.code() == 1
        assert "READ access was not granted: denied" in "\n".join(seen.screen())
        assert seen.shown.count("oncall report") == 1
        assert "\x1b[?1049h" not in seen.shown
    # Nor does it need a server, where a record was kept.
    history = (await running.handle.fetch_history()).to_json()
    write_record(tmp_path / ".state" / "x", report, history)
    kept = await oncall(tmp_path, "watch", running.handle.id, "--json")
    assert kept.code == 1
    assert json.loads(kept.stdout)["status"] == "unresolved"
