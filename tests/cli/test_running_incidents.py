"""Contract: what the commands say about incidents that run is true, whatever one of them does.

One that never answers hides no other; a record is kept only when it is whole; an order to stop that was honoured,
refused, too late or not answered is called so.
"""

import json
from pathlib import Path

import pytest
from temporalio.client import Client

from oncall.cli.abort import Became, said
from oncall.cli.deciding import send
from oncall.model import names
from oncall.model.errors import ErrorCode, Retryable
from oncall.model.incident import Ending, Phase
from oncall.model.report import AbortOrders, AccessEntry, IncidentReport
from oncall.temporal import gates, incidents
from tests.cli.desk import Desk, Evidenced
from tests.cli.test_reports import report
from tests.people import Person, approvers
from tests.workflows.conftest import Incident, Open, incident, people
from tests.workflows.scripted import Script

__all__ = ["incident", "people"]  # fixtures of the workflows' tests: a real server and scripted steps

People = tuple[Person, Person]


@pytest.mark.timeout(120)
async def test_one_that_never_answers_hides_no_other(
    incident: Open, people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    (read,) = await running.waiting()
    client = running.env.client
    # Both are what anybody who may start workflows can start: input of another kind, and a queue where nobody polls.
    await client.start_workflow(
        names.INCIDENT_WORKFLOW, "not an opening", id="incident-stuck", task_queue=names.Queue.ORCHESTRATE
    )
    await client.start_workflow(names.INCIDENT_WORKFLOW, "x", id="incident-elsewhere", task_queue="nobody-polls")
    desk = Desk(tmp_path, running.env, alice)
    listed = await desk("approvals", "--json")
    assert listed.code == 0
    assert [entry["request_id"] for entry in json.loads(listed.stdout)["approvals"]] == [read.request_id]
    assert "1 running incidents did not answer and are left out: incident-stuck" in listed.stderr
    looked = await desk("status", "--json")
    assert [one["phase"] for one in json.loads(looked.stdout)["incidents"]] == ["awaiting_read_approval"]
    assert (await desk("deny", read.request_id, "--key", str(alice.key))).code == 0
    await client.get_workflow_handle("incident-stuck").terminate()


async def test_an_incident_speaks_for_itself_only(incident: Open, people: People) -> None:
    running = await incident(Script(approvers(people[0])))
    (read,) = await running.waiting()
    assert await gates.approvals(running.env.client, read.incident_id) == (read,)
    assert read.incident_id == running.handle.id


@pytest.mark.timeout(120)
async def test_a_record_is_kept_only_once_the_workflow_has_completed(
    incident: Open, people: People, tmp_path: Path
) -> None:
    alice, _ = people
    script = Evidenced(approvers(alice), state=tmp_path / "state")
    running = await incident(script)
    await running.decide(alice, (await running.waiting())[0], False)
    await running.in_phase(Phase.CLOSED)
    desk = Desk(tmp_path, running.env, alice)
    early = json.loads((await desk("report", running.handle.id, "--json")).stdout)
    assert early["closed_at"] is not None
    assert early["files"]["history"] is None
    assert not (tmp_path / "state" / "incidents").exists()
    script.hold_report.set()
    await incidents.result(running.env.client, running.handle.id, early["run_id"], 30)
    late = json.loads((await desk("report", running.handle.id, "--json")).stdout)
    history = json.loads(Path(late["files"]["history"]).read_text())
    assert history["events"][-1]["eventType"] == "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED"
    assert json.loads(Path(late["files"]["report"]).read_text())["files"] == late["files"]


@pytest.mark.timeout(120)
async def test_an_order_to_stop_is_told_from_one_that_was_refused_or_came_late(
    incident: Open, people: People, tmp_path: Path
) -> None:
    alice, mallory = people
    running = await incident(Script(approvers(alice)))
    await running.waiting()
    desk = Desk(tmp_path, running.env, alice)

    async def order(person: Person) -> tuple[int, str]:
        ran = await desk("abort", running.handle.id, "--key", str(person.key), "--json")
        return ran.code, json.loads(ran.stdout)["outcome"]

    assert await order(mallory) == (1, "refused")
    code, outcome = await order(alice)
    assert (code, outcome in ("aborted", "stopping")) == (0, True)
    assert (await running.report()).status == Ending.ABORTED
    assert await order(alice) == (1, "closed")


@pytest.mark.timeout(120)
async def test_an_incident_that_somebody_signed_replays(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))  # it brings the workers
    desk = Desk(tmp_path, running.env, alice)
    signed = ("--key", str(alice.key), "--json")
    opened = json.loads((await desk("trigger", "--anomaly", "errors", "--severity", "critical", *signed)).stdout)
    handle = running.env.client.get_workflow_handle(opened["incident_id"], result_type=IncidentReport)
    (read,) = await Incident(running.env, handle).waiting()
    assert (await desk("deny", read.request_id, *signed)).code == 0
    assert (await handle.result()).requester == "alice"
    replayed = json.loads((await desk("replay", opened["incident_id"], "--json")).stdout)
    assert (replayed["identical"], replayed["divergence"]) == (True, None)


OLD = AbortOrders(refused=1, last_refusal="it names another incident")
REFUSED = AbortOrders(refused=2, last_refusal="who?")
HONOURED = AbortOrders(honoured="aborted by alice: enough", refused=2, last_refusal="who?")


@pytest.mark.parametrize(
    ("orders", "closed", "status", "became"),
    [
        (OLD, False, "investigating", None),
        (REFUSED, False, "investigating", Became("refused", "who?")),
        (HONOURED, False, "remediating", Became("stopping", "aborted by alice: enough")),
        (HONOURED, True, "aborted", Became("aborted", "aborted by alice: enough")),
        (OLD, True, "resolved", Became("closed", "the incident closed before it could be stopped: resolved")),
    ],
)
def test_what_an_incident_says_to_an_order(
    orders: AbortOrders, closed: bool, status: str, became: Became | None
) -> None:
    before = report().model_copy(update={"abort_orders": OLD, "closed_at": None, "status": "investigating"})
    moment = report().closed_at if closed else None
    now = before.model_copy(update={"abort_orders": orders, "closed_at": moment, "status": status})
    assert said(before, now) == became


@pytest.mark.timeout(120)
async def test_silence_is_not_nothing(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))  # it brings the workers
    await running.approve(alice)
    await running.approve(alice, 2)
    await running.report()
    client = running.env.client
    await client.start_workflow(names.INCIDENT_WORKFLOW, "x", id="incident-mute", task_queue=names.Queue.ORCHESTRATE)
    desk = Desk(tmp_path, running.env, alice)
    for command, key in (("approvals", "approvals"), ("status", "incidents")):
        ran = await desk(command, "--json")
        assert ran.code == 3
        assert json.loads(ran.stdout) == {key: [], "silent": ["incident-mute"]}
        assert (await desk(command)).stdout == ""
    await client.get_workflow_handle("incident-mute").terminate()


@pytest.mark.timeout(120)
async def test_one_that_was_ended_from_outside_is_not_called_running(
    incident: Open, people: People, tmp_path: Path
) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    await running.waiting()
    await running.handle.terminate("by hand")
    desk = Desk(tmp_path, running.env, alice)
    for command in ("status", "approvals", "report"):
        ran = await desk(command, running.handle.id)
        assert ran.code == 1
        assert "was terminated from outside" in ran.error


@pytest.mark.timeout(120)
async def test_a_wrong_namespace_is_called_so(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    desk = Desk(tmp_path, running.env, alice, variables={"TEMPORAL_NAMESPACE": "nights"})
    for command in (("approvals",), ("trigger", "--anomaly", "x", "--severity", "low")):
        ran = await desk(*command)
        assert ran.code == 2
        assert "nights" in ran.error
        assert "does not exist" not in ran.error


@pytest.mark.timeout(120)
async def test_a_decision_that_nobody_hears_yet_was_sent(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    (read,) = await running.waiting()
    silent = Retryable(ErrorCode.TEMPORAL_UNREACHABLE, "no answer")
    asked = 0

    async def access_once(client: Client, workflow_id: str) -> tuple[AccessEntry, ...]:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise silent
        return await real(client, workflow_id)

    real, gates.access = gates.access, access_once
    try:
        decided = await send(running.env.client, read, alice.decide(read.request_digest, True))
    finally:
        gates.access = real
    assert decided.outcome == "sent"
    await running.waiting(2)
