"""Contract: a person sees what they sign, and what they signed is what counts.

Against the real workflow on a real server: `approvals` shows the bytes, `approve` and `deny` sign exactly those, the
gate's own word is printed, and nothing is signed whose digest does not match, that is unknown, or already decided.
"""

import json
import stat
from pathlib import Path

import pytest

from oncall.cli import approve, deciding
from oncall.cli.request_view import read_pending, what_is_asked
from oncall.model.access import AccessRequest
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.incident import Ending, PendingApproval
from oncall.trust import requests
from tests.cli.command import Ran, oncall
from tests.cli.desk import Desk, Evidenced
from tests.people import Person, approvers
from tests.workflows.conftest import Incident, Open, incident, people
from tests.workflows.scripted import Script

__all__ = ["incident", "people"]  # fixtures of the workflows' tests: a real server and scripted steps

People = tuple[Person, Person]


@pytest.mark.timeout(240)  # sixteen commands, each a process
async def test_what_waits_is_shown_signed_and_confirmed(incident: Open, people: People, tmp_path: Path) -> None:
    alice, mallory = people
    script = Evidenced(approvers(alice), state=tmp_path / "state")
    script.hold_report.set()
    running: Incident = await incident(script)
    (read,) = await running.waiting()
    desk = Desk(tmp_path, running.env, alice)

    listed = await desk("approvals", "--json")
    assert listed.code == 0
    assert listed.stdout.count("\n") == 1
    (shown,) = json.loads(listed.stdout)["approvals"]
    assert shown["request"] == read.request
    assert shown["references"] == ["op://Infrastructure/k8s-prod-readonly/credential"]

    stranger = await desk("approve", read.request_id, "--key", str(mallory.key), "--json")
    assert stranger.code == 1
    answer = json.loads(stranger.stdout)
    assert answer["outcome"] == "refused"
    assert "is not in the list of allowed signers" in answer["detail"]

    unknown = await desk("approve", "req-000000000000", "--key", str(alice.key))
    assert (unknown.code, unknown.stdout) == (2, "")
    assert "no request 'req-000000000000' waits" in unknown.error

    yes = await desk("approve", read.request_digest[:20], "--key", str(alice.key), "--reason", "go", "--json")
    assert (yes.code, json.loads(yes.stdout)["outcome"], json.loads(yes.stdout)["approvers"]) == (
        0,
        "approved",
        ["alice"],
    )

    again = await desk("approve", read.request_id, "--key", str(alice.key))
    assert again.code == 1
    assert "is approved already; nothing was signed" in again.error

    flag, kill = await running.waiting(2)
    people_see = await desk("approvals")
    assert "query_id" in people_see.stdout
    assert kill.request_digest in people_see.stdout
    assert (await desk("deny", kill.request_id, "--key", str(alice.key))).code == 0
    assert (await desk("approve", flag.request_id, "--key", str(alice.key))).code == 0
    report = await running.report()
    assert report.status == Ending.RESOLVED
    assert [entry.decision for entry in report.access] == ["approved", "approved", "denied"]
    assert report.access[0].reason == "go"

    page = await desk("report", report.incident_id, "--format", "html")
    assert page.stdout.startswith("<!doctype html>")
    text = await desk("report", report.incident_id, "--json")
    assert json.loads(text.stdout)["status"] == "resolved"
    history = json.loads(text.stdout)["files"]["history"]
    for source in (history, report.incident_id):
        replayed = await desk("replay", source, "--json")
        assert (replayed.code, json.loads(replayed.stdout)["identical"]) == (0, True)
    # Without its signals it diverges, and Temporal's own log stays out of the one document on stdout.
    events = json.loads(Path(history).read_text())
    events["events"] = [e for e in events["events"] if e["eventType"] != "EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED"]
    (tmp_path / "other.json").write_text(json.dumps(events))
    diverged = await desk("replay", "other.json", "--json")
    assert (diverged.code, json.loads(diverged.stdout)["identical"]) == (1, False)
    looked = await desk("status", report.incident_id, "--json")
    assert json.loads(looked.stdout)["status"] == "resolved"
    assert json.loads((await desk("status", "--json")).stdout) == {"incidents": [], "silent": []}
    missing = await desk("report", "incident-none")
    assert missing.code == 2
    assert "incident-none does not exist" in missing.error


@pytest.mark.timeout(120)
async def test_a_change_without_evidence_is_not_signed_and_a_no_needs_none(
    incident: Open, people: People, tmp_path: Path
) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))  # whose synthesis no worker has signed
    await running.decide(alice, (await running.waiting())[0], True)
    flag, kill = await running.waiting(2)
    desk = Desk(tmp_path / "here", running.env, alice)
    (tmp_path / "here" / "state" / "blobs").mkdir(parents=True)
    for flags in ((), ("--unverified-evidence",)):
        refused = await desk("approve", flag.request_id, "--key", str(alice.key), *flags)
        assert refused.code == 1
        assert "not signing: no blob" in refused.error
    assert (await desk("deny", kill.request_id, "--key", str(alice.key))).code == 0
    elsewhere = Desk(tmp_path / "elsewhere", running.env, configured=False)
    refused = await elsewhere("approve", flag.request_id, "--key", str(alice.key))
    assert refused.code == 1
    assert "no oncall.yaml here" in refused.error
    signed = await elsewhere("approve", flag.request_id, "--key", str(alice.key), "--unverified-evidence")
    assert signed.code == 0
    assert "without having verified" in signed.stderr
    assert [entry.decision for entry in (await running.report()).access] == ["approved", "approved", "denied"]


async def test_in_a_terminal_a_yes_is_asked_for_unless_given(incident: Open, people: People, tmp_path: Path) -> None:
    alice, _ = people
    running = await incident(Script(approvers(alice)))
    (read,) = await running.waiting()
    desk = Desk(tmp_path, running.env, alice)
    command = ("approve", read.request_id, "--key", str(alice.key), "--json")
    code, output = await desk.typed("n\n", *command)
    assert (code, json.loads(output)["outcome"]) == (1, "not_signed")
    assert [waiting.request_id for waiting in await running.waiting()] == [read.request_id]
    code, output = await desk.typed("y\n", *command)
    assert (code, json.loads(output)["outcome"]) == (0, "approved")


def _pending(request: AccessRequest) -> PendingApproval:
    digest = requests.request_digest(request)
    return PendingApproval(
        incident_id=request.incident_id,
        request_id=requests.request_id(digest),
        request_digest=digest,
        request=requests.request_text(request),
        action=None,
    )


def _request(**changes: object) -> AccessRequest:
    values: dict[str, object] = {
        "kind": "write",
        "tenant": "t",
        "incident_id": "incident-1",
        "requester": None,
        "severity": "critical",
        "purpose": "a\x1b[2Jpurpose",
        "references": ["op://a/b/c"],
        "intent": {
            "parameters": {"type": "disable_flag", "region": "r\x1b[31m", "flag": "f", "expected_version": 3},
            "target": {"kind": "flag", "identity": "r\x1b[31m/f"},
        },
        "policy_digest": "sha256:0",
        "ledger_id": "l",
        "nonce": "n",
        "not_before": "2026-01-01T00:00:00Z",
        "answer_by": "2100-01-01T00:00:00Z",
        "grant_expires_at": "2100-01-01T00:00:00Z",
        **changes,
    }
    return AccessRequest.model_validate(values)


def test_a_request_that_is_not_what_its_digest_names_is_never_signed(people: People) -> None:
    alice, _ = people
    honest, other = _pending(_request()), _pending(_request(purpose="something else"))
    assert deciding.make_decision(honest, True, "", alice.key).request_digest == honest.request_digest
    for forged in (
        honest.model_copy(update={"request": other.request}),
        honest.model_copy(update={"request": honest.request + " "}),
        honest.model_copy(update={"request_id": other.request_id}),
        honest.model_copy(update={"incident_id": "incident-2"}),
        honest.model_copy(update={"request": "{}"}),
    ):
        with pytest.raises(Terminal) as refused:
            deciding.make_decision(forged, True, "", alice.key)
        assert refused.value.code is ErrorCode.REQUEST_MISMATCH


def test_an_expired_request_is_not_signed(people: People) -> None:
    old = _pending(_request(answer_by="2026-01-01T00:30:00Z"))
    with pytest.raises(Terminal, match="expired at 00:30:00 UTC") as refused:
        deciding.make_decision(old, True, "", people[0].key)
    assert refused.value.code is ErrorCode.REQUEST_EXPIRED


def test_the_line_above_a_signature_shows_every_parameter_and_no_escape() -> None:
    line = what_is_asked(read_pending(_pending(_request())))
    assert line == "WRITE disable_flag region=r\\x1b[31m flag=f expected_version=3"


def test_an_ambiguous_or_short_beginning_is_refused() -> None:
    first = _pending(_request())
    twin = first.model_copy(update={"request_digest": first.request_digest[:-1] + "x", "request_id": "req-twin"})
    waiting = (first, twin)
    with pytest.raises(Terminal, match="more than one request"):
        approve.find(waiting, first.request_digest[:20])
    assert approve.find(waiting, first.request_digest) is first
    for wanted in (first.request_digest, first.request_id):
        with pytest.raises(Terminal, match="more than one request"):
            approve.find((first, first.model_copy(update={"incident_id": "incident-2"})), wanted)
    for wanted in ("", "req-", "sha256:", first.request_digest[7:9]):
        with pytest.raises(Terminal, match="no request"):
            approve.find((first,), wanted)


async def test_keys_init_makes_the_first_approver_and_no_second(tmp_path: Path, people: People) -> None:
    (tmp_path / "oncall.yaml").write_text(
        "state: s\napprovers: who\npolicy: p\nconnect: {url: u}\nsources: {telemetry: t}\n"
    )
    made = json.loads((await oncall(tmp_path, "keys", "init", "--name", "dana", "--json")).stdout)
    assert made["approvers"] == str(tmp_path / "who")
    assert stat.S_IMODE(Path(made["key"]).stat().st_mode) == 0o600
    second = await oncall(tmp_path, "keys", "init", "--name", "eve", "--key", str(tmp_path / "eve"), "--json")
    assert json.loads(second.stdout)["approvers"] is None

    def names(ran: Ran) -> list[str]:
        return [entry["name"] for entry in json.loads(ran.stdout)["approvers"]]

    assert names(await oncall(tmp_path, "approvers", "list", "--json")) == ["dana"]
    assert (await oncall(tmp_path, "approvers", "add", "eve", "--key", "eve.pub")).code == 0
    assert names(await oncall(tmp_path, "approvers", "list", "--json")) == ["dana", "eve"]
    assert (await oncall(tmp_path, "approvers", "add", "mallory", "--key", "eve.pub")).code == 2
    assert (await oncall(tmp_path, "approvers", "remove", "dana")).code == 0
    assert names(await oncall(tmp_path, "approvers", "list", "--json")) == ["eve"]
    assert (await oncall(tmp_path, "approvers", "remove", "dana")).code == 2
