"""Contract: recovery is held against what the synthesis signed, not against what telemetry still holds; what cannot be
read for a moment is unknown for that moment only."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import verify
from activities.evidence import SYNTHESIS_TYPE, Evidence
from activities.sources import Sources
from activities.verify import Verify
from oncall.analyst.recovery import symptoms
from oncall.blobs.store import BlobStore
from oncall.config import Config
from oncall.model.agent import Specialist
from oncall.model.diagnosis import Conclusion, RootCause
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.steps import Synthesis, VerifyIn
from oncall.model.verification import Verification
from oncall.telemetry.protocol import Telemetry
from oncall.telemetry.window import Window
from oncall.temporal.pools import Pool, pinned_keys
from tests.analyst.worlds import TOPOLOGY, Memory, points, step, window
from tests.workflows.scripted import diagnosis

ROOT = RootCause(region="north", service="back", specialist=Specialist.LOGS, cause="c", confidence=0.9)
FAILING = ("north", "back", "error_rate(%)")
SICK, WELL = window({FAILING: step(0, 80)}), window()
# All that is left when the past has been pruned: eighty percent look usual.
STILL_SICK = window({FAILING: points([80.0] * 60)})


class Flaky(Memory):
    """Cannot be read the first `failures` times."""

    def __init__(self, held: Window, failures: int = 0) -> None:
        super().__init__(held)
        self._failures = failures

    async def window(self, start: datetime, end: datetime) -> Window:
        """The window, or the error of a folder that is away."""
        if self.reads < self._failures:
            self.reads += 1
            raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, "the folder is away")
        return await super().window(start, end)


class Only(Sources):
    """One source of telemetry."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        super().__init__(config.sources)
        self._only = telemetry

    def telemetry(self, recording: str | None) -> Telemetry:
        """It."""
        return self._only


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("HOLD_S", 0.3), ("POLL_S", 0.05), ("PATIENCE_S", 1.5)):
        monkeypatch.setattr(verify, name, seconds)


async def verified(folder: Path, telemetry: Telemetry) -> Verification:
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
        since=datetime.now(UTC),
    )
    # No broker: a cause that is no database asks for no secret.
    activity: Any = Verify(config, None, Only(config, telemetry), evidence).verify  # type: ignore[arg-type]
    result = await ActivityEnvironment().run(activity, task)
    assert isinstance(result, Verification)
    return result


async def test_a_past_that_was_pruned_meanwhile_makes_nothing_recovered(tmp_path: Path) -> None:
    result = await verified(tmp_path, Flaky(STILL_SICK))
    assert not result.recovered
    [errors] = [check for check in result.checks if check.name == "error_rate(%)" and check.service == "back"]
    assert errors.after == 80
    assert errors.threshold < 20


async def test_a_moment_without_telemetry_is_waited_out(tmp_path: Path) -> None:
    result = await verified(tmp_path, Flaky(WELL, failures=5))
    assert result.recovered
    assert result.blind == ()


async def test_telemetry_that_stays_away_is_named_and_nothing_has_recovered(tmp_path: Path) -> None:
    result = await verified(tmp_path, Flaky(WELL, failures=10**6))
    assert (result.recovered, result.checks, result.blind) == (False, (), ("the folder is away",))
