"""How long it takes to re-execute the live incident of 150 agents."""

import asyncio
import sys
import time

from benchmarks.lab import Lab
from benchmarks.row import Row
from benchmarks.statistics import median
from oncall.cli.children import ROOT, child_environment
from oncall.temporal.replay import replay

NAME = "replay"
BUDGET_S = 2.0


async def run(lab: Lab) -> list[Row]:
    """The replay alone, and the whole `starter.py replay` command with its interpreter's start."""
    history = (await lab.live()).history.to_json()
    path = lab.state / "history.json"
    path.write_text(history, encoding="utf-8")
    alone, command = [], []
    for number in range(lab.runs):
        started = time.perf_counter()
        result = await replay(history)
        alone.append(time.perf_counter() - started)
        assert result.identical, f"the history does not replay: {result.divergence}"
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "starter.py"), "replay", str(path), "--json"),
            env=child_environment({}),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        code = await process.wait()
        command.append(time.perf_counter() - started)
        assert code == 0, f"`starter.py replay` exited with {code}"
        lab.say(f"replay {number + 1}: {alone[-1]:.2f} s, as a command {command[-1]:.2f} s")
    note = f"the live incident's history, {result.events} events; first run included"
    return [
        Row(NAME, "replay of the live incident", median(alone), "s", BUDGET_S, note),
        Row(NAME, "`starter.py replay`, whole command", median(command), "s", BUDGET_S, note),
    ]
