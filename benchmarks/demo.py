"""The whole demo, from command to exit."""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.lab import Lab
from benchmarks.row import Row
from benchmarks.statistics import median
from oncall.cli.children import ROOT, child_environment
from oncall.temporal.embedded import die_with_parent

NAME = "demo"
SEEDS = (7, 8, 9)
BUDGET_S = 120.0
NOTE = (
    "`starter.py demo --yes --json`, the command that `make demo` runs, from start to exit with everything installed; "
    f"seeds {', '.join(map(str, SEEDS))}, the first only with --quick"
)


async def run(lab: Lab) -> list[Row]:
    """Seconds per demo, and how many did not end resolved with the right cause."""
    seconds, failures = [], []
    for seed in SEEDS[: max(1, lab.runs // len(SEEDS))]:
        started = time.perf_counter()
        code, result = await _demo(seed, lab.state / f"demo-{seed}")
        seconds.append(time.perf_counter() - started)
        status, correct = result.get("status"), result.get("drill", {}).get("correct")
        failures.append(float(code != 0 or status != "resolved" or not correct))
        lab.say(f"seed {seed}: exit code {code}, {status}, correct {correct}, {seconds[-1]:.1f} s")
    total = sum(failures)
    return [
        Row(NAME, "demo: start to exit", median(seconds), "s", BUDGET_S, NOTE),
        Row(NAME, f"demo: not resolved or wrong, of {len(failures)}", median([total]), "runs", 0.0, NOTE),
    ]


async def _demo(seed: int, state: Path) -> tuple[int, dict[str, Any]]:
    """The demo's exit code and its report; an empty one when it printed none."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "starter.py"), "demo", "--yes", "--json"),
        *("--seed", str(seed), "--state", str(state)),
        env=child_environment({}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
    )
    try:
        output, _ = await process.communicate()
    finally:
        # Also when we are stopped: the demo stops its own stack on SIGTERM.
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        code = await process.wait()
    return code, json.loads(output) if output.strip() else {}
