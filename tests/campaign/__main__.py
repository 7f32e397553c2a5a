"""`python -m tests.campaign kill`: kills workers and the Temporal server again and again, and counts what is lost."""

import argparse
import json
import sys
import time
from pathlib import Path

from oncall.cli import loop, settings
from oncall.cli.demo import chosen_seed
from oncall.model.errors import OncallError, Retryable
from tests.campaign import campaign
from tests.campaign.plan import Planner
from tests.campaign.points import POINTS, named
from tests.campaign.table import document, table

KILLS, RESTARTS = 100, 10
QUICK = named(
    "75th agent acknowledged", "flag: done on the target", "kill: 1st backend ended", "report scheduled, server"
)


def main() -> int:
    """0 every zero is zero, 1 one is not, 2 wrong usage or configuration, 3 a part did not start, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", epilog="example: python -m tests.campaign kill --quick --seed 7"
    )
    parser.add_argument("what", choices=["kill"])
    parser.add_argument("--quick", action="store_true", help="a few points, and one restart of the server")
    parser.add_argument("--seed", type=int, help="of faults, kills and the person's manner (default: random, printed)")
    parser.add_argument("--kills", type=int, help=f"at random moments (default {KILLS}, quick none)")
    parser.add_argument("--restarts", type=int, help=f"of the server (default {RESTARTS}, quick only at its point)")
    parser.add_argument("--points", nargs="*", metavar="NAME", help="only these points (none: no point)")
    parser.add_argument("--state", type=Path, help="state folder, made afresh (.state/campaign)")
    parser.add_argument("--json", action="store_true", help="one JSON document on one line instead of the table")
    arguments = parser.parse_args()
    seed = chosen_seed(arguments.seed)
    quick = arguments.quick
    try:
        points = (QUICK if quick else POINTS) if arguments.points is None else named(*arguments.points)
    except KeyError as unknown:
        parser.error(f"no point {unknown}; they are: {', '.join(point.name for point in POINTS)}")
    kills = arguments.kills if arguments.kills is not None else (0 if quick else KILLS)
    restarts = arguments.restarts if arguments.restarts is not None else (0 if quick else RESTARTS)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    say(f"seed {seed}: {len(points)} points, {kills} random kills, {restarts} restarts of the server")
    state = (arguments.state or settings.state_root() / "campaign").absolute()
    try:
        result = loop.run(campaign.run(state, seed, Planner(seed, points, kills, restarts), not quick, say))
    except OncallError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 3 if isinstance(error, Retryable) else 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    print(json.dumps(document(result)) if arguments.json else table(result))
    return 1 if result.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
