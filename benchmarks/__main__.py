"""`python -m benchmarks`: the budgets of the design, measured side by side. Prints a table; asserts no times."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import approval, demo, estate, history, investigation, later, replay, secret_requests
from benchmarks.lab import Lab
from benchmarks.row import Row, table
from oncall.cli import loop
from oncall.model.errors import OncallError, Retryable

# In this order: what needs a calm estate comes before the fault, what needs none after it.
BENCHMARKS = {
    module.NAME: module.run for module in (estate, secret_requests, investigation, history, replay, approval, demo)
}
NEED_LIVE = {history.NAME, replay.NAME, approval.NAME}
RUNS = 10
QUICK_RUNS = 3


def main() -> int:
    """0 measured (whatever the verdicts), 2 wrong usage or configuration, 3 a part did not start."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the budgets of the design: medians of interleaved runs with bootstrap intervals.",
        epilog="example: python -m benchmarks --quick --only investigation",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} runs instead of {RUNS}: a look, no result")
    parser.add_argument("--only", action="append", choices=[*BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--seed", type=int, default=7, help="where the fault is (default 7)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    chosen = [name for name in BENCHMARKS if not arguments.only or name in arguments.only]
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {line}", file=sys.stderr, flush=True)

    load_before = os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory(prefix="oncall-bench-") as folder:
            # PostgreSQL runs as another user: it must be able to pass through.
            Path(folder).chmod(0o755)
            lab = Lab(
                Path(folder),
                QUICK_RUNS if arguments.quick else RUNS,
                arguments.seed,
                not NEED_LIVE.isdisjoint(chosen),
                say,
            )
            # Stopped by a signal, it still stops what it started.
            rows = loop.run(_measure(lab, chosen))
    except OncallError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 3 if isinstance(error, Retryable) else 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was measured to its end", file=sys.stderr)
        return 130
    host = {
        "cores": os.cpu_count(),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "quick": arguments.quick,
        "seconds": round(time.monotonic() - started, 1),
    }
    if arguments.json:
        print(json.dumps({"host": host, "rows": [row.document() for row in rows]}))
        return 0
    quick = "; --quick: too few runs for a verdict to mean much" if arguments.quick else ""
    print(table(rows))
    print(
        f"\n{host['cores']} cores, load {load_before:.1f} before and {host['load_after']:.1f} after, "
        f"{host['seconds']:.0f} s in all{quick}"
    )
    return 0


async def _measure(lab: Lab, chosen: list[str]) -> list[Row]:
    rows: list[Row] = []
    try:
        for name in chosen:
            lab.say(f"── {name}")
            rows += await BENCHMARKS[name](lab)
    finally:
        await lab.close()
    if len(chosen) == len(BENCHMARKS):
        rows += later.ROWS
    return rows


if __name__ == "__main__":
    sys.exit(main())
