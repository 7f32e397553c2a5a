"""Contract: an alert has recovered by itself only when its own figures are back for long enough; the first look that is
bad or blind settles it. Nothing is read for another tenant, or under a grant that the broker's ledger has not open."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import recovery
from activities.implements import missing
from activities.measure import Measure
from oncall.access.ledger import EntryKind
from oncall.config import Config
from oncall.model.access import Grant
from oncall.model.errors import ErrorCode
from oncall.model.steps import MEASURE, MeasureIn
from oncall.model.symptom import Symptom
from oncall.model.verification import Verification
from oncall.telemetry.window import Window
from oncall.trust.requests import request_text
from tests.access.approving import World, a_world, decide
from tests.activities.scripted_telemetry import AWAY, Only, Scripted
from tests.analyst.worlds import step, window

SICK, WELL = window({("north", "back", "error_rate(%)"): step(0, 80)}), window()
ERRORS = Symptom(region="north", service="back", metric="error_rate(%)", before=80.0, threshold=8.0)
HOLD_S = 0.3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "HOLD_S", HOLD_S)
    monkeypatch.setattr(recovery, "POLL_S", 0.05)


@dataclass
class Alert:
    """An open grant, and the step that measures under it."""

    world: World
    grant: Grant
    config: Config

    async def measure(
        self, telemetry: Scripted, env: ActivityEnvironment | None = None, **changes: Any
    ) -> Verification:
        """One measurement, as a worker runs it."""
        fields = {
            "incident_id": "inc-1",
            "tenant": "oncall",
            "symptoms": (ERRORS,),
            "grant_digest": self.grant.request_digest,
        }
        activity: Any = Measure(self.config, self.world.reader(), Only(self.config, telemetry)).measure
        result = await (env or ActivityEnvironment()).run(activity, MeasureIn(**{**fields, **changes}))
        assert isinstance(result, Verification)
        return result

    async def refused(self, telemetry: Scripted, **changes: Any) -> ApplicationError:
        """The failure of one measurement."""
        with pytest.raises(ApplicationError) as caught:
            await self.measure(telemetry, **changes)
        return caught.value


@pytest.fixture
async def alert(tmp_path: Path) -> AsyncIterator[Alert]:
    paths: dict[str, Any] = dict.fromkeys(("state", "approvers", "policy"), tmp_path)
    config = Config.model_validate({**paths, "connect": {"url": "u"}, "sources": {"telemetry": tmp_path / "nowhere"}})
    async with a_world(tmp_path) as world:
        request = world.read_request()
        grant = await world.reader().open_grant(request_text(request), (decide(request),))
        yield Alert(world, grant, config)


async def test_figures_that_are_back_for_long_enough_have_recovered(alert: Alert) -> None:
    telemetry, began = Scripted(WELL), time.monotonic()
    result = await alert.measure(telemetry)
    assert (result.recovered, result.settled, result.blind) == (True, True, ())
    assert time.monotonic() - began >= HOLD_S
    assert telemetry.reads >= 3
    [check] = result.checks
    assert (check.name, check.before, check.after, check.threshold, check.ok) == ("error_rate(%)", 80, 0, 8, True)


@pytest.mark.parametrize(
    ("looks", "reads", "blind"),
    [((SICK,), 1, ()), ((None, WELL), 1, (AWAY,)), ((WELL, WELL, SICK, WELL), 3, ()), ((WELL, None, WELL), 2, (AWAY,))],
    ids=["bad", "blind", "bad again", "blind meanwhile"],
)
async def test_the_first_look_that_is_bad_or_blind_settles_it(
    alert: Alert, looks: tuple[Window | None, ...], reads: int, blind: tuple[str, ...]
) -> None:
    telemetry = Scripted(*looks)
    result = await alert.measure(telemetry)
    assert (result.recovered, result.settled, result.blind) == (False, True, blind)
    assert telemetry.reads == reads


@pytest.mark.parametrize(
    "symptoms",
    [
        (),
        (ERRORS, ERRORS.model_copy(update={"metric": "never_recorded(%)"})),
        (ERRORS.model_copy(update={"threshold": None}),),
        (ERRORS.model_copy(update={"before": 1.0}),),
        (ERRORS, ERRORS.model_copy(update={"metric": "requests(1/s)", "service": "front"})),
    ],
    ids=["none", "one that is not recorded", "no threshold", "never was bad", "no direction is bad"],
)
async def test_what_cannot_be_told_has_not_recovered(alert: Alert, symptoms: tuple[Symptom, ...]) -> None:
    traffic = window({("north", "front", "requests(1/s)"): step(5, 5)})
    result = await alert.measure(Scripted(traffic), symptoms=symptoms)
    assert (result.recovered, result.settled) == (False, True)


async def test_a_worker_that_must_stop_settles_nothing(alert: Alert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "HOLD_S", 60.0)
    monkeypatch.setattr(recovery, "POLL_S", 30.0)
    env, telemetry = ActivityEnvironment(), Scripted(WELL)
    asked = asyncio.create_task(alert.measure(telemetry, env))
    while not telemetry.reads:
        await asyncio.sleep(0.01)
    env.worker_shutdown()
    result = await asyncio.wait_for(asked, 5)
    assert (result.recovered, result.settled) == (False, False)
    assert [check.ok for check in result.checks] == [True]


async def test_another_tenants_incident_is_refused_before_anything_is_read(alert: Alert) -> None:
    telemetry = Scripted(WELL)
    refusal = await alert.refused(telemetry, tenant="acme")
    assert (refusal.type, refusal.non_retryable) == (ErrorCode.BAD_CONFIG, True)
    assert "'acme'" in refusal.message
    assert telemetry.reads == 0


async def test_nothing_is_read_under_a_grant_that_is_not_open(alert: Alert) -> None:
    telemetry, ledger = Scripted(SICK), alert.world.ledger
    unknown = await alert.refused(telemetry, grant_digest="sha256:" + "0" * 64)
    assert (unknown.type, unknown.non_retryable) == (ErrorCode.GRANT_UNKNOWN, True)
    ledger.append(EntryKind.HALT, "", {"incident_id": "inc-1"})
    assert (await alert.refused(telemetry)).type == ErrorCode.HALTED
    ledger.append(EntryKind.RESUME, "", {})
    now, alert.world.clock.now = alert.world.clock.now, alert.grant.expires_at
    assert (await alert.refused(telemetry)).type == ErrorCode.GRANT_EXPIRED
    assert telemetry.reads == 0
    alert.world.clock.now = now
    assert not (await alert.measure(telemetry)).recovered


async def test_a_grant_that_is_revoked_while_it_must_hold_ends_it(
    alert: Alert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "HOLD_S", 60.0)
    telemetry = Scripted(WELL)
    asked = asyncio.create_task(alert.refused(telemetry))
    while not telemetry.reads:
        await asyncio.sleep(0.01)
    alert.world.ledger.append(EntryKind.REVOKE, alert.grant.request_digest, {"person": "alice"})
    assert (await asyncio.wait_for(asked, 5)).type == ErrorCode.GRANT_REVOKED


def test_it_implements_the_step() -> None:
    assert missing((MEASURE,), (Measure.measure,)) == []
