"""What an incident must not believe or forget about the shift's grant and about measuring."""

import asyncio
from dataclasses import dataclass, field

from activities.implements import implements
from oncall.model import names, steps
from oncall.model.access import GateStatus
from oncall.model.diagnosis import Conclusion
from oncall.model.errors import ErrorCode, OncallError, Terminal
from oncall.model.incident import Ending, Phase
from oncall.model.verification import Verification
from oncall.trust import requests
from tests.people import approvers
from tests.workflows.conftest import Open
from tests.workflows.on_call import shared
from tests.workflows.scripted import SYMPTOM, Script
from tests.workflows.test_rings import People


@dataclass
class Measuring(Script):
    """Measurements that fail, or that a worker's end cuts short, before the scripted one."""

    unsettled: int = 0
    measure_failures: list[OncallError] = field(default_factory=list)
    measured_under: list[str] = field(default_factory=list)

    @implements(steps.MEASURE)
    async def measure(self, task: steps.MeasureIn) -> Verification:
        self.measured_under.append(task.grant_digest)
        if self.measure_failures:
            raise self.measure_failures.pop(0)
        if self.unsettled:
            self.unsettled -= 1
            return Verification(recovered=False, improved=False, checks=(), settled=False)
        return await super().measure(task)


async def test_a_worker_that_stops_while_it_measures_decides_nothing(incident: Open, people: People) -> None:
    alice, _ = people
    script = Measuring(approvers(alice), conclusion=Conclusion.NO_FAULT, recovers_by_itself=True, unsettled=1)
    running = await incident(script, lambda o: o.model_copy(update={"symptoms": (SYMPTOM,)}))
    await running.approve(alice)
    assert (await running.report()).status == Ending.SELF_RECOVERED


async def test_all_is_well_is_not_said_of_figures_that_could_not_be_measured(incident: Open, people: People) -> None:
    alice, _ = people
    gone = Terminal(ErrorCode.GRANT_REVOKED, "the grant was revoked")
    script = Measuring(approvers(alice), conclusion=Conclusion.NO_FAULT, measure_failures=[gone])
    running = await incident(script, lambda o: o.model_copy(update={"symptoms": (SYMPTOM,)}))
    await running.approve(alice)
    assert (await running.report()).status == Ending.UNRESOLVED


async def test_nobodys_signal_takes_the_shifts_grant_from_an_incident(incident: Open, people: People) -> None:
    alice, mallory = people
    script = Measuring(approvers(alice), conclusion=Conclusion.NO_FAULT, hold_survey=asyncio.Event())
    running = await incident(script, lambda o: o.model_copy(update={"grant": shared(alice)}))
    assert script.hold_survey is not None
    await running.handle.signal(names.SIGNAL_GRANT, shared(mallory))
    await asyncio.sleep(0.3)
    script.hold_survey.set()
    await running.in_phase(Phase.CLOSED)
    [read] = (await running.report()).access
    assert (read.decision, read.approvers) == (GateStatus.APPROVED, ("alice",))


async def test_a_revoked_grant_that_somebody_sends_again_displaces_no_open_one(incident: Open, people: People) -> None:
    alice, _ = people
    script = Measuring(approvers(alice), conclusion=Conclusion.NO_FAULT, hold_investigation=asyncio.Event())
    mine, revoked = shared(alice), shared(alice)
    running = await incident(script, lambda o: o.model_copy(update={"grant": mine, "symptoms": (SYMPTOM,)}))
    await running.in_phase(Phase.INVESTIGATING)
    # The broker says of it: revoked. It is in Temporal's history for everybody to copy, and was asked for last.
    script.grant_failures.append(Terminal(ErrorCode.GRANT_REVOKED, "the grant was revoked"))
    await running.handle.signal(names.SIGNAL_GRANT, revoked)
    assert script.hold_investigation is not None
    await asyncio.sleep(0.3)
    script.hold_investigation.set()
    await running.report()
    digest = requests.request_digest(requests.parse_request(mine.request))
    assert set(script.measured_under) == {digest}


async def test_a_hostile_threshold_stops_no_workflow(incident: Open, people: People) -> None:
    alice, _ = people
    script = Measuring(approvers(alice), conclusion=Conclusion.NO_FAULT)
    endless = SYMPTOM.model_copy(update={"threshold": float("inf")})
    running = await incident(script, lambda o: o.model_copy(update={"symptoms": (endless,)}))
    await running.approve(alice)
    await running.report()
