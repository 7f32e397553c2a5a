"""Faults in a row, as a person on call would live them: `dev`, `on-call start`, `approve`, then one fault after another
through the estate's admin API. Each is to be noticed by the shift, opened once, finished, and the watch goes on.

Every step is the command that a person types, in a process of its own. `python -m tests.campaign.faults --faults 10`.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client

from oncall.cli.children import Child, python
from oncall.cli.estate_admin import EstateAdmin
from oncall.cli.symptom import Entrances
from oncall.model import names
from tests.cli.command import Ran, oncall

SCENARIOS = ("cascading_failure", "high_error_rate")
READY_S = 120.0
NOTICED_S = 90.0
CLOSED_S = 240.0
QUIET_S = 120.0
STOP_S = 60.0


class Failed(Exception):
    """What should have happened did not."""


@dataclass(frozen=True)
class Lived:
    """One fault and its incident. `true`: the estate agrees with a `resolved`, no fault is active any more."""

    scenario: str
    seed: int
    incident_id: str
    run_id: str
    noticed_s: float
    seconds: float
    ending: str
    actions: tuple[str, ...]
    correct: bool
    true: bool


@dataclass
class OnCall:
    """A running `dev`, and the commands against it."""

    folder: Path
    urls: dict[str, Any]

    @property
    def estate(self) -> EstateAdmin:
        """The estate's admin API."""
        return EstateAdmin(self.urls["estate_admin"], Path(self.urls["estate_admin_token_file"]))

    async def type(self, *arguments: str) -> Ran:
        """A command in a process of its own."""
        return await oncall(self.folder, *arguments, env={"ONCALL_STATE": str(self.folder / "state")}, timeout_s=120)

    async def json(self, *arguments: str) -> Any:
        """The one document of a command that works."""
        ran = await self.type(*arguments, "--json")
        if ran.code:
            raise Failed(f"{' '.join(arguments)}: exit code {ran.code}: {ran.stderr.strip()}")
        return json.loads(ran.stdout)

    async def shift(self) -> Any:
        """What `on-call status` says of the shift."""
        return await self.json("on-call", "status", "--team", "primary")

    async def go_on_call(self) -> None:
        """`on-call start`, and a yes to its one question."""
        begun = await self.json("on-call", "start")
        await self.json("approve", begun["waiting_for"][0])

    async def live(self, scenario: str, seed: int) -> Lived:
        """One fault, from its injection until the shift sees nothing any more."""
        before = await self.shift()
        fault = await self.estate.inject(scenario, seed)
        started = time.monotonic()
        try:
            incident = await self._noticed(before["opened"])
            noticed_s = time.monotonic() - started
            await self._closed(incident["incident_id"], len(before["closed"]))
            seconds = time.monotonic() - started
            report = await self.json("report", incident["incident_id"])
            active = sum((await self.estate.runaways()).values())
            expected = await self.estate.truth(fault)
            still_on = (await self.estate.flags())[expected["region"]][expected["flag"]]
        finally:
            await self.estate.heal(fault)
        cause = (report["diagnosis"] or {}).get("root_cause") or {}
        place = [cause.get(name) for name in ("region", "service", "specialist")]
        return Lived(
            scenario=scenario,
            seed=seed,
            incident_id=incident["incident_id"],
            run_id=report["run_id"],
            noticed_s=round(noticed_s, 1),
            seconds=round(seconds, 1),
            ending=report["status"],
            actions=tuple(action["type"] for action in report["actions"]),
            correct=place == [expected[name] for name in ("region", "service", "specialist")],
            true=report["status"] != "resolved" or not (active or still_on),
        )

    async def quiet(self, looks: int = 3) -> None:
        """Wait until users are fine and the shift has seen nothing for some looks."""
        await Entrances(Path(self.urls["telemetry"])).calm(QUIET_S)
        async with asyncio.timeout(QUIET_S):
            calm_since: int | None = None
            while True:
                now = await self.shift()
                in_sight = now["last_look"] is None or now["last_look"]["groups"]
                calm_since = None if in_sight else calm_since or now["looks"]
                if calm_since is not None and now["looks"] >= calm_since + looks:
                    return
                await asyncio.sleep(1)

    async def incidents(self) -> list[tuple[str, str, str]]:
        """Every incident run that Temporal knows: id, run id, status."""
        client = await Client.connect(self.urls["temporal"])
        query = f"WorkflowType = '{names.INCIDENT_WORKFLOW}'"
        return [
            (one.id, one.run_id, one.status.name if one.status else "") async for one in client.list_workflows(query)
        ]

    async def _noticed(self, opened: int) -> Any:
        deadline = time.monotonic() + NOTICED_S
        while time.monotonic() < deadline:
            now = await self.shift()
            if now["opened"] > opened and now["open"]:
                return now["open"][-1]
            await asyncio.sleep(0.5)
        raise Failed(f"the shift noticed nothing within {NOTICED_S:.0f} s")

    async def _closed(self, incident_id: str, closed: int) -> None:
        """Say yes to all that waits, until the shift itself has seen the incident close."""
        deadline = time.monotonic() + CLOSED_S
        while time.monotonic() < deadline:
            for asked in (await self.json("approvals", incident_id))["approvals"]:
                # One that has closed meanwhile waits no longer: that is seen below.
                with contextlib.suppress(Failed):
                    await self.json("approve", asked["request_id"], "--reason", "campaign")
            now = await self.shift()
            if len(now["closed"]) > closed or not any(each["incident_id"] == incident_id for each in now["open"]):
                return
            await asyncio.sleep(0.5)
        raise Failed(f"{incident_id} did not close within {CLOSED_S:.0f} s")


@asynccontextmanager
async def dev(folder: Path, seed: int) -> AsyncIterator[OnCall]:
    """`starter.py dev`, stopped as Ctrl-C does."""
    env = {"ONCALL_STATE": str(folder / "state"), "HOME": str(folder)}
    child = await Child.start("dev", python("starter", "dev", "--seed", str(seed), "--json"), env, folder / "dev.log")
    try:
        yield OnCall(folder, await child.ready(READY_S))
    finally:
        await child.stop(STOP_S)


async def live_through(faults: Sequence[tuple[str, int]], folder: Path, say: Any = lambda _: None) -> list[Lived]:
    """The faults, one after the other. Raises Failed when one is not noticed, opened twice, or does not close."""
    lived: list[Lived] = []
    async with dev(folder, faults[0][1]) as on_call:
        await Entrances(Path(on_call.urls["telemetry"])).calm(QUIET_S)
        await on_call.go_on_call()
        await on_call.quiet()
        for number, (scenario, seed) in enumerate(faults, 1):
            lived.append(await on_call.live(scenario, seed))
            say(f"{number}/{len(faults)}  {lived[-1]}")
            await on_call.quiet()
            runs = await on_call.incidents()
            if len(runs) != number or {status for _, _, status in runs} != {"COMPLETED"}:
                raise Failed(f"{number} faults, and these incidents: {runs}")
        shift = await on_call.shift()
        if shift["phase"] != "watching" or shift["opened"] != len(faults):
            raise Failed(f"the shift is {shift['phase']} and has opened {shift['opened']} for {len(faults)} faults")
    return lived


async def _main(count: int, seed: int, as_json: bool) -> int:
    faults = [(SCENARIOS[number % len(SCENARIOS)], seed + number) for number in range(count)]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="oncall-faults-") as folder:
        try:
            lived = await live_through(faults, Path(folder), say)
        except Failed as failed:
            say(f"failed: {failed}")
            return 1
    right = sum(one.correct for one in lived)
    resolved = sum(one.ending == "resolved" for one in lived)
    untrue = sum(not one.true for one in lived)
    noticed = sorted(one.noticed_s for one in lived)
    result = {
        "faults": count,
        "incidents": len({one.run_id for one in lived}),
        "resolved": resolved,
        "correct": right,
        "falsely_resolved": untrue,
        "noticed_s": {"min": noticed[0], "median": noticed[len(noticed) // 2], "max": noticed[-1]},
        "lived": [asdict(one) for one in lived],
    }
    if as_json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:17} {value}" for name, value in result.items() if name != "lived"))
    return 0 if result["incidents"] == count and not untrue else 1


def main() -> int:
    """Runs the command line; 0 when every fault had exactly one incident and none was falsely resolved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    return asyncio.run(_main(arguments.faults, arguments.seed, arguments.json))


if __name__ == "__main__":
    sys.exit(main())
