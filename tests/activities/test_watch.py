"""Contract: a look sees what the telemetry holds now, as alerts, and only while the broker's own ledger says that the
grant is open; telemetry that is away is worth another try soon."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.implements import missing
from activities.sources import Sources
from activities.watch import RETRY_AFTER_S, Watch
from oncall.access.ledger import EntryKind
from oncall.config import Config
from oncall.model.access import Grant
from oncall.model.alert import Severity
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.steps import OBSERVE, Observed, ObserveIn
from oncall.telemetry.protocol import Telemetry
from oncall.telemetry.window import Series, Window
from oncall.trust.requests import request_text
from tests.access.approving import World, a_world, decide
from tests.activities.scripted_telemetry import Only
from tests.analyst.worlds import NOW, Memory, step, window


def as_of_now(held: Window) -> Window:
    """The window as if it had been read this moment."""
    later = datetime.now(UTC) - NOW
    seconds = later.total_seconds()
    series = {
        place: {metric: Series(one.times + seconds, one.values) for metric, one in metrics.items()}
        for place, metrics in held.series.items()
    }
    return Window(held.start + later, held.end + later, series)


FAILING = {
    ("north", "front", "error_rate(%)"): step(0, 30),
    ("north", "middle", "error_rate(%)"): step(0, 60),
    ("south", "back", "latency_p95(ms)"): step(20, 900),
}


@dataclass
class Shift:
    """An open grant, telemetry, and the step that looks."""

    world: World
    grant: Grant
    config: Config
    telemetry: Memory

    async def observe(self, source: Telemetry | None = None, **changes: str) -> Observed:
        """One look, as a worker runs it."""
        watch = Watch(self.config, self.world.reader(), Only(self.config, source or self.telemetry))
        fields = {"shift_id": "shift-blue", "tenant": "oncall", "grant_digest": self.grant.request_digest}
        activity: Any = watch.observe
        observed = await ActivityEnvironment().run(activity, ObserveIn(**{**fields, **changes}))
        assert isinstance(observed, Observed)
        return observed

    async def refused(self, source: Telemetry | None = None, **changes: str) -> ApplicationError:
        """The failure of one look."""
        with pytest.raises(ApplicationError) as caught:
            await self.observe(source, **changes)
        return caught.value


@pytest.fixture
async def shift(tmp_path: Path) -> AsyncIterator[Shift]:
    paths: dict[str, Any] = dict.fromkeys(("state", "approvers", "policy"), tmp_path)
    config = Config.model_validate({**paths, "connect": {"url": "u"}, "sources": {"telemetry": tmp_path / "nowhere"}})
    async with a_world(tmp_path) as world:
        request = world.read_request(incident_id="shift-blue", severity=None)
        grant = await world.reader().open_grant(request_text(request), (decide(request),))
        yield Shift(world, grant, config, Memory(as_of_now(window(FAILING))))


async def test_what_stands_out_comes_as_alerts_worst_first(shift: Shift) -> None:
    before = datetime.now(UTC)
    observed = await shift.observe()
    assert [(alert.region, alert.service, alert.severity) for alert in observed.groups] == [
        ("north", "middle", Severity.CRITICAL),
        ("south", "back", Severity.MEDIUM),
    ]
    assert observed.groups[0].services == ("front", "middle")
    assert (observed.services, observed.blind) == (6, ())
    assert before <= observed.as_of <= datetime.now(UTC)
    assert shift.telemetry.reads == 1


async def test_who_cannot_be_seen_is_named(shift: Shift) -> None:
    held = as_of_now(window())
    series = {place: metrics for place, metrics in held.series.items() if place != ("south", "back")}
    observed = await shift.observe(Memory(Window(held.start, held.end, series)))
    assert (observed.services, observed.blind, observed.groups) == (5, ("south/back",), ())
    old = await shift.observe(Memory(window(FAILING)))
    assert (old.services, len(old.blind), old.groups) == (0, 6, ())


async def test_another_tenants_shift_is_refused_before_anything_is_read(shift: Shift) -> None:
    refusal = await shift.refused(tenant="acme")
    assert (refusal.type, refusal.non_retryable) == (ErrorCode.BAD_CONFIG, True)
    assert "'acme'" in refusal.message
    assert shift.telemetry.reads == 0


async def test_nothing_is_read_under_a_grant_that_is_not_open(shift: Shift) -> None:
    unknown = await shift.refused(grant_digest="sha256:" + "0" * 64)
    assert (unknown.type, unknown.non_retryable) == (ErrorCode.GRANT_UNKNOWN, True)
    shift.world.ledger.append(EntryKind.HALT, "", {})
    assert (await shift.refused()).type == ErrorCode.HALTED
    shift.world.ledger.append(EntryKind.RESUME, "", {})
    await shift.observe()
    shift.world.ledger.append(EntryKind.HALT, "", {"incident_id": "shift-blue"})
    assert (await shift.refused()).type == ErrorCode.HALTED
    shift.world.ledger.append(EntryKind.RESUME, "", {"incident_id": "shift-blue"})
    shift.world.ledger.append(EntryKind.REVOKE, shift.grant.request_digest, {"person": "alice"})
    assert (await shift.refused()).type == ErrorCode.GRANT_REVOKED
    assert shift.telemetry.reads == 1
    assert shift.world.refusals() == ["grant_unknown", "halted", "halted", "grant_revoked"]


async def test_a_grant_that_has_ended_shows_nothing_any_more(shift: Shift) -> None:
    shift.world.clock.now = shift.grant.expires_at
    refusal = await shift.refused()
    assert (refusal.type, refusal.non_retryable) == (ErrorCode.GRANT_EXPIRED, True)
    assert shift.telemetry.reads == 0


class Broken(Memory):
    """A folder with a file that cannot be read."""

    async def window(self, start: datetime, end: datetime) -> Window:
        """Raises what a backend raises."""
        raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, "a telemetry file cannot be read")


async def test_telemetry_that_is_away_is_tried_again_soon(shift: Shift) -> None:
    away = Sources(shift.config.sources).telemetry(None)
    for source in (away, Broken(window())):
        failure = await shift.refused(source)
        assert (failure.type, failure.non_retryable) == (ErrorCode.TELEMETRY_UNAVAILABLE, False)
        assert failure.next_retry_delay == timedelta(seconds=RETRY_AFTER_S)


def test_it_implements_the_step() -> None:
    assert missing((OBSERVE,), (Watch.observe,)) == []
