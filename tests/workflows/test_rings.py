"""How far an incident looks, and when it is over by itself: rings by severity, widening while it is inconclusive, the
shift's grant instead of a question, and measurements that outrank what agents say. Scripted steps on a real server."""

import asyncio
from datetime import UTC, datetime

import pytest

from oncall.model import names
from oncall.model.access import AccessKind, GateStatus, SharedGrant
from oncall.model.action import Outcome
from oncall.model.alert import Severity
from oncall.model.diagnosis import Conclusion
from oncall.model.incident import Ending, Phase
from oncall.rules import approvals
from oncall.temporal.replay import replay
from oncall.trust import requests
from tests.people import Person, approvers
from tests.workflows.conftest import Incident, Open
from tests.workflows.on_call import shared
from tests.workflows.scripted import SYMPTOM, Script

People = tuple[Person, Person]


def at(severity: Severity, region: str | None, service: str | None) -> dict[str, object]:
    return {"severity": severity, "region": region, "service": service}


async def told(running: Incident) -> None:
    assert (await replay((await running.handle.fetch_history()).to_json())).identical


@pytest.mark.parametrize(
    ("place", "agents"),
    [
        (at(Severity.LOW, "eu-west-1", "order"), 5),
        (at(Severity.MEDIUM, "eu-west-1", "order"), 10),
        (at(Severity.HIGH, "eu-west-1", "order"), 20),
        (at(Severity.LOW, "eu-west-1", None), 10),
        (at(Severity.LOW, None, None), 20),
        (at(Severity.LOW, "mars", "order"), 20),
    ],
)
async def test_severity_and_place_decide_who_looks(
    incident: Open, people: People, place: dict[str, object], agents: int
) -> None:
    alice, _ = people
    script = Script(approvers(alice), conclusion=Conclusion.NO_FAULT)
    running = await incident(script, lambda o: o.model_copy(update=place))
    await running.approve(alice)
    report = await running.report()
    assert (report.coverage.planned, report.status) == (agents, Ending.NO_FAULT)
    assert len(set(script.agents)) == len(script.agents) == agents


async def test_an_inconclusive_incident_looks_again_one_ring_wider(incident: Open, people: People) -> None:
    alice, _ = people
    inconclusive = [Conclusion.INCONCLUSIVE] * 2
    script = Script(approvers(alice), conclusions=inconclusive, conclusion=Conclusion.ROOT_CAUSE)
    running = await incident(script, lambda o: o.model_copy(update=at(Severity.LOW, "eu-west-1", "order")))
    await running.approve(alice)
    await running.approve(alice, 2)
    report = await running.report()
    assert report.status == Ending.RESOLVED
    assert len(script.agents) == 5 + 10 + 20
    assert report.coverage.planned == 20
    assert [span.phase for span in report.phases].count(Phase.INVESTIGATING) == 3
    assert [note.split(":")[0] for note in report.notes] == ["5 agents (service)", "10 agents (neighbours)"]
    assert script.calls["open_read_grant"] == 1
    await told(running)


async def test_what_stays_inconclusive_ends_with_the_whole_estate_seen(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), conclusion=Conclusion.INCONCLUSIVE)
    running = await incident(script, lambda o: o.model_copy(update=at(Severity.HIGH, "eu-west-1", "order")))
    await running.approve(alice)
    report = await running.report()
    assert report.status == Ending.UNRESOLVED
    assert report.coverage.planned == 20


@pytest.mark.parametrize(
    ("conclusion", "recovers", "ending"),
    [
        (Conclusion.NO_FAULT, True, Ending.SELF_RECOVERED),
        (Conclusion.INCONCLUSIVE, True, Ending.SELF_RECOVERED),
        # "All is well" does not close an incident whose own figures are bad.
        (Conclusion.NO_FAULT, False, Ending.UNRESOLVED),
        (Conclusion.INCONCLUSIVE, False, Ending.UNRESOLVED),
    ],
)
async def test_the_alerts_own_figures_have_the_last_word(
    incident: Open, people: People, conclusion: Conclusion, recovers: bool, ending: Ending
) -> None:
    alice, _ = people
    script = Script(approvers(alice), conclusion=conclusion, recovers_by_itself=recovers)
    running = await incident(script, lambda o: o.model_copy(update={"symptoms": (SYMPTOM,)}))
    await running.approve(alice)
    report = await running.report()
    assert report.status == ending
    assert report.verification is not None
    assert report.verification.recovered is recovers


async def test_what_recovers_while_people_think_is_closed_without_a_remedy(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice))
    running = await incident(script)
    await running.approve(alice)
    await running.waiting(2)
    script.recovers_by_itself = True
    report = await running.report()
    assert report.status == Ending.SELF_RECOVERED
    assert script.applied == []
    assert [entry.outcome for entry in report.actions] == [Outcome.SKIPPED] * 2
    assert [entry.decision for entry in report.access[1:]] == [GateStatus.EXPIRED] * 2
    assert report.verification is not None
    assert report.verification.recovered
    await told(running)


async def test_once_a_remedy_has_run_nothing_recovers_by_itself(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), recovers_by_itself=True)
    running = await incident(script)
    await running.approve(alice)
    flag, kill = await running.waiting(2)
    await running.decide(alice, flag, approved=True)
    # Longer than the first pause between two looks.
    await asyncio.sleep(16)
    assert script.applied == ["disable_flag"]
    assert script.calls.get("measure", 0) == 0
    await running.decide(alice, kill, approved=True)
    assert (await running.report()).status == Ending.RESOLVED


async def test_under_a_shifts_grant_nobody_is_asked_to_read(incident: Open, people: People) -> None:
    alice, _ = people
    script = Script(approvers(alice), conclusion=Conclusion.NO_FAULT)
    running = await incident(script, lambda o: o.model_copy(update={"grant": shared(alice)}))
    report = await running.report()
    assert report.status == Ending.NO_FAULT
    [read] = report.access
    assert (read.decision, read.approvers) == (GateStatus.APPROVED, ("alice",))
    # Nobody is asked; the broker says whether it is open.
    assert script.calls["open_read_grant"] == 1
    assert Phase.AWAITING_READ_APPROVAL not in [span.phase for span in report.phases]


async def test_an_incident_asks_for_itself_when_no_approver_signed_the_grant(incident: Open, people: People) -> None:
    alice, mallory = people
    script = Script(approvers(alice), conclusion=Conclusion.NO_FAULT)
    running = await incident(script, lambda o: o.model_copy(update={"grant": shared(mallory)}))
    await running.waiting()
    await running.handle.signal(names.SIGNAL_GRANT, shared(mallory))
    assert (await running.status()).phase is Phase.AWAITING_READ_APPROVAL
    await running.approve(alice)
    assert [entry.decision for entry in (await running.report()).access] == [GateStatus.APPROVED]


def test_only_an_approvers_yes_to_a_read_request_of_this_tenant_is_a_shared_grant(people: People) -> None:
    alice, mallory = people
    good, now = shared(alice), datetime.now(UTC)
    ends = requests.parse_request(good.request).grant_expires_at
    unsigned = good.decisions[0].model_copy(update={"signature": ""})
    forged = (
        shared(mallory),
        shared(alice, tenant="other"),
        shared(alice, kind=AccessKind.WRITE),
        shared(alice, approved=False),
        SharedGrant(request=good.request, decisions=()),
        SharedGrant(request=good.request, decisions=(unsigned,)),
        SharedGrant(request=good.request, decisions=shared(alice).decisions),
        good.model_copy(update={"request": good.request.replace("shift-x", "shift-y")}),
        good.model_copy(update={"request": good.request + " "}),
        good.model_copy(update={"request": "{}"}),
    )
    known = approvers(alice)
    gate = approvals.shared(good, "test", known, now)
    assert gate is not None
    assert gate.approvers == ("alice",)
    assert [approvals.shared(grant, "test", known, now) for grant in forged] == [None] * len(forged)
    assert approvals.shared(good, "test", known, ends) is None
