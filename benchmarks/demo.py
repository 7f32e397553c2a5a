"""The whole demo, from command to exit."""

import asyncio
import json
import sys
import time

from benchmarks.lab import Lab
from benchmarks.row import Row
from benchmarks.statistics import median
from oncall.cli.children import ROOT, environment

NAME = "demo"
SEEDS = (7, 8, 9)
BUDGET_S = 120.0
NOTE = (
    "`starter.py demo --yes --json`, the command that `make demo` runs, from start to exit with everything installed; "
    f"seeds {', '.join(map(str, SEEDS))}"
)


async def run(lab: Lab) -> list[Row]:
    """Seconds per demo, and how many did not end resolved with the right cause."""
    seconds, failures = [], []
    for seed in SEEDS[: lab.runs if lab.runs >= len(SEEDS) else 1]:
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "starter.py"), "demo", "--yes", "--json"),
            *("--seed", str(seed), "--state", str(lab.state / f"demo-{seed}")),
            env=environment({}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        seconds.append(time.perf_counter() - started)
        result = json.loads(output) if process.returncode in (0, 1) and output.strip() else {}
        status, correct = result.get("status"), result.get("drill", {}).get("correct")
        failures.append(float(process.returncode != 0 or status != "resolved" or not correct))
        lab.say(f"seed {seed}: exit code {process.returncode}, {status}, correct {correct}, {seconds[-1]:.1f} s")
    total = sum(failures)
    return [
        Row(NAME, "demo: start to exit", median(seconds), "s", BUDGET_S, NOTE),
        Row(NAME, f"demo: not resolved or wrong, of {len(failures)}", median([total]), "runs", 0.0, NOTE),
    ]
