"""Contract: recovery is held against what the synthesis signed, not against what telemetry still holds; what cannot be
read for a moment is unknown for that moment only. One attempt is short, and a worker that must stop ends it at once,
without a failure: whoever asked looks on."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import recovery, verify
from activities.evidence import SYNTHESIS_TYPE, Evidence
from activities.verify import Verify
from oncall.analyst.recovery import symptoms
from oncall.blobs.store import BlobStore
from oncall.config import Config
from oncall.model.agent import Specialist
from oncall.model.diagnosis import Conclusion, RootCause
from oncall.model.steps import Synthesis, VerifyIn
from oncall.model.verification import Verification
from oncall.temporal.pools import Pool, pinned_keys
from tests.activities.scripted_telemetry import AWAY, Only, Scripted
from tests.analyst.worlds import TOPOLOGY, points, step, window
from tests.workflows.scripted import diagnosis

ROOT = RootCause(region="north", service="back", specialist=Specialist.LOGS, cause="c", confidence=0.9)
FAILING = ("north", "back", "error_rate(%)")
SICK, WELL = window({FAILING: step(0, 80)}), window()
# All that is left when the past has been pruned: eighty percent look usual.
STILL_SICK = window({FAILING: points([80.0] * 60)})
POLL_S, HOLD_S, ATTEMPT_S = 0.05, 0.3, 0.6
SLACK_S = 5.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "HOLD_S", HOLD_S)
    monkeypatch.setattr(recovery, "POLL_S", POLL_S)
    monkeypatch.setattr(verify, "ATTEMPT_S", ATTEMPT_S)


async def verified(
    folder: Path, telemetry: Scripted, since: datetime | None = None, env: ActivityEnvironment | None = None
) -> Verification:
    """What `verify` says of an incident whose synthesis measured SICK."""
    paths: dict[str, Any] = dict.fromkeys(("state", "approvers", "policy"), folder)
    config = Config.model_validate({**paths, "connect": {"url": "u"}, "sources": {"telemetry": folder}})
    worker = Pool(folder, "test", "investigate").worker()
    evidence = Evidence(BlobStore(folder / "blobs"), pinned_keys(folder))
    synthesis = Synthesis(
        incident_id="incident-1",
        diagnosis=diagnosis(Conclusion.ROOT_CAUSE),
        actions=(),
        observations=(),
        symptoms=symptoms(SICK, TOPOLOGY, ROOT),
        evidence_digest="",
    )
    digest, _ = await asyncio.to_thread(evidence.store, worker, SYNTHESIS_TYPE, synthesis)
    task = VerifyIn(
        incident_id="incident-1",
        tenant="test",
        root_cause=ROOT,
        evidence_digest=digest,
        grant_digest="sha256:0",
        since=since or datetime.now(UTC),
    )
    # No broker: a cause that is no database asks for no secret.
    activity: Any = Verify(config, None, Only(config, telemetry), evidence).verify  # type: ignore[arg-type]
    result = await (env or ActivityEnvironment()).run(activity, task)
    assert isinstance(result, Verification)
    return result


@contextmanager
def lasting(at_least_s: float, at_most_s: float) -> Iterator[None]:
    """Fails when the block is shorter or longer."""
    began = time.monotonic()
    yield
    assert at_least_s <= time.monotonic() - began <= at_most_s


async def test_a_past_that_was_pruned_meanwhile_makes_nothing_recovered(tmp_path: Path) -> None:
    result = await verified(tmp_path, Scripted(STILL_SICK))
    assert not result.recovered
    [errors] = [check for check in result.checks if check.name == "error_rate(%)" and check.service == "back"]
    assert errors.after == 80
    assert errors.threshold < 20


async def test_a_moment_without_telemetry_is_waited_out(tmp_path: Path) -> None:
    result = await verified(tmp_path, Scripted(*[None] * 5, WELL))
    assert (result.recovered, result.settled, result.blind) == (True, True, ())


async def test_telemetry_that_stays_away_is_named_and_nothing_has_recovered(tmp_path: Path) -> None:
    result = await verified(tmp_path, Scripted(None, *[None] * 10**4, WELL))
    assert (result.recovered, result.settled, result.checks, result.blind) == (False, False, (), (AWAY,))


async def test_recovery_is_measured_for_as_long_as_it_must_hold(tmp_path: Path) -> None:
    telemetry = Scripted(WELL)
    with lasting(HOLD_S, HOLD_S + SLACK_S):
        result = await verified(tmp_path, telemetry)
    assert (result.recovered, result.settled) == (True, True)
    assert telemetry.reads >= 3


async def test_what_has_not_recovered_within_one_attempt_is_not_settled(tmp_path: Path) -> None:
    with lasting(ATTEMPT_S, ATTEMPT_S + SLACK_S):
        result = await verified(tmp_path, Scripted(SICK))
    assert (result.recovered, result.settled) == (False, False)


class SickFor(Scripted):
    """SICK for some seconds from the first look on, then WELL for some, then SICK again."""

    def __init__(self, sick_s: float, well_s: float) -> None:
        super().__init__(SICK)
        self._sick_s, self._well_s = sick_s, well_s
        self._began: float | None = None

    async def window(self, start: datetime, end: datetime) -> Any:
        """By the clock."""
        self._began = self._began or time.monotonic()
        at = time.monotonic() - self._began
        return WELL if self._sick_s <= at < self._sick_s + self._well_s else SICK


async def test_recovery_that_begins_as_an_attempt_ends_may_still_show_that_it_holds(tmp_path: Path) -> None:
    with lasting(ATTEMPT_S, ATTEMPT_S + HOLD_S + SLACK_S):
        result = await verified(tmp_path, SickFor(ATTEMPT_S - 3 * POLL_S, 60))
    assert (result.recovered, result.settled) == (True, True)


async def test_a_relapse_before_it_has_held_is_no_recovery(tmp_path: Path) -> None:
    result = await verified(tmp_path, SickFor(ATTEMPT_S - 3 * POLL_S, HOLD_S / 2))
    assert (result.recovered, result.settled) == (False, False)


async def test_telemetry_from_before_verifying_began_does_not_count(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    just_begun = Scripted(WELL)
    await verified(tmp_path, just_begun, since=now)
    assert min(just_begun.asked) == now
    long_ago = Scripted(WELL)
    await verified(tmp_path, long_ago, since=now - timedelta(hours=1))
    assert min(long_ago.asked) >= now - timedelta(minutes=1)


@pytest.mark.parametrize("shown", [SICK, WELL], ids=["sick", "well but not for long enough"])
async def test_a_worker_that_must_stop_gives_the_last_measurement_and_leaves_the_rest_to_another(
    tmp_path: Path, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "HOLD_S", 60.0)
    monkeypatch.setattr(verify, "ATTEMPT_S", 60.0)
    monkeypatch.setattr(recovery, "POLL_S", 30.0)
    env, telemetry = ActivityEnvironment(), Scripted(shown)
    asked = asyncio.create_task(verified(tmp_path, telemetry, env=env))
    while not telemetry.reads:
        await asyncio.sleep(0.01)
    env.worker_shutdown()
    result = await asyncio.wait_for(asked, SLACK_S)
    assert (result.recovered, result.settled) == (False, False)
    assert result.checks
    assert all(check.ok for check in result.checks) == (shown is WELL)
    assert telemetry.reads == 1
