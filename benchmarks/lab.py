"""What several benchmarks share, made when first asked for: the live estate, a recording of its fault, incidents."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.recording import link_copy, make_recording
from benchmarks.stack import Closed, run_incident, running
from oncall.cli.children import Child, python
from oncall.cli.estate_admin import EstateAdmin
from oncall.cli.symptom import Entrances, Shares
from oncall.model.errors import ErrorCode, Retryable

ESTATE_READY_S = 60.0
CALM_TIMEOUT_S = 120.0
SYMPTOM_TIMEOUT_S = 40.0
FAILING_PERCENT = 10.0
RECENT_S = 4.0
SCENARIO = "cascading_failure"
# The recording goes on for a moment after its alert, as the published ones do.
AFTER_ALERT_S = 4.0
_STOP_S = 30.0


@dataclass(frozen=True)
class Estate:
    """A running estate: its process, what it printed, and how long that took in seconds."""

    child: Child
    info: dict[str, Any]
    ready_s: float

    @property
    def telemetry(self) -> Path:
        """The folder of its telemetry."""
        return Path(self.info["telemetry"])


@asynccontextmanager
async def running_estate(state: Path, seed: int) -> AsyncIterator[Estate]:
    """An estate in `state`, stopped again afterwards."""
    started = time.perf_counter()
    command = python("estate", "--state", str(state), "--seed", str(seed))
    child = await Child.start("the estate", command, {}, state.with_suffix(".log"))
    try:
        info = await child.ready(ESTATE_READY_S)
        yield Estate(child, info, time.perf_counter() - started)
    finally:
        await child.stop(_STOP_S)


async def _failing(entrances: Entrances) -> Shares | None:
    """The shares once an entrance fails, None when none does within SYMPTOM_TIMEOUT_S."""
    deadline = time.monotonic() + SYMPTOM_TIMEOUT_S
    while time.monotonic() < deadline:
        shares = await entrances.shares(RECENT_S)
        if shares and max(shares.values()) >= FAILING_PERCENT:
            return shares
        await asyncio.sleep(1.0)
    return None


class Lab:
    """One bench run. `runs` is the number of rounds per benchmark; `say` takes progress, line by line.

    `wants_live` makes the one fault that is injected serve for an incident on the live estate as well.
    """

    def __init__(self, state: Path, runs: int, seed: int, wants_live: bool, say: Callable[[str], None]) -> None:
        self.state = state
        self.runs = runs
        self.seed = seed
        self.say = say
        self.recordings = state / "recordings"
        self._wants_live = wants_live
        self._estate_scope = AsyncExitStack()
        self._estate: Estate | None = None
        self._recording: Path | None = None
        self._live: Closed | None = None
        self._recorded: list[Closed] = []
        self._info: dict[str, Any] | None = None

    async def estate(self) -> Estate:
        """The live estate, as yet without a fault."""
        if self._estate is None:
            self.say("starting the estate")
            running_one = running_estate(self.state / "estate", self.seed)
            self._estate = await self._estate_scope.enter_async_context(running_one)
            self._info = self._estate.info
        return self._estate

    async def recording(self) -> Path:
        """A recording of the estate's cascading failure, for runs that need no estate: it has stopped by then."""
        if self._recording is None:
            await self._break()
        assert self._recording is not None
        return self._recording

    async def live(self) -> Closed:
        """The incident of that same fault on the live estate, every gate answered."""
        if self._live is None:
            await self._break()
        assert self._live is not None, "a benchmark that needs the live incident says so in `wants_live`"
        return self._live

    async def recorded(self) -> Closed:
        """An incident over the recording: the latest that ran, else one made now."""
        if not self._recorded:
            name = link_copy(await self.recording(), self.recordings / "single")
            async with running(self.state / "single", self.info, self.recordings) as stack:
                self.keep(await run_incident(stack, name))
        return self._recorded[-1]

    def keep(self, closed: Closed) -> None:
        """Remember an incident over the recording."""
        self._recorded.append(closed)

    @property
    def info(self) -> dict[str, Any]:
        """The estate's ready line, also when it has stopped: a worker over recordings needs its names only."""
        assert self._info is not None, "no estate has been started"
        return self._info

    async def close(self) -> None:
        """Stops what still runs."""
        await self._estate_scope.aclose()
        self._estate = None

    async def _break(self) -> None:
        estate = await self.estate()
        admin = EstateAdmin(estate.info["admin"], Path(estate.info["admin_token_file"]))
        entrances = Entrances(estate.telemetry)
        self.say("waiting for a calm baseline")
        await entrances.calm(CALM_TIMEOUT_S)
        fault = await admin.inject(SCENARIO, self.seed)
        try:
            shares = await _failing(entrances)
            if shares is None:
                message = f"no entrance failed within {SYMPTOM_TIMEOUT_S:.0f} s of the fault: nothing to record"
                raise Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, message)
            starts_at = datetime.now(UTC)
            place = max(shares, key=lambda entrance: shares[entrance])
            await asyncio.sleep(AFTER_ALERT_S)
            self.recordings.mkdir()
            self._recording = make_recording(estate.telemetry, self.state / "recording", place, starts_at)
            self.say(f"recorded a fault that shows at {place[1]} in {place[0]}")
            if self._wants_live:
                self.say("an incident on the live estate")
                async with running(self.state / "live", estate.info) as stack:
                    self._live = await run_incident(stack)
                self.say(f"ended {self._live.report.status}")
        finally:
            with contextlib.suppress(Retryable):
                await admin.heal(fault)
            await self.close()
