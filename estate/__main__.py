"""`python -m estate`: a miniature real estate to find faults in.

Prints one JSON line when it is ready and runs until SIGTERM, SIGINT or the end of its parent.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from estate.postgres import ServerFailed
from estate.statedir import AlreadyRunning, StateDir
from estate.supervisor import Supervisor


def main() -> int:
    """Runs the command line; 0 when stopped, 1 when a server failed, 2 on wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m estate",
        description="Runs three regions of ten real services until stopped.",
        epilog="example: python -m estate --state .state/estate --seed 7",
    )
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="state directory")
    parser.add_argument("--seed", type=int, default=1, help="decides data and flags (default 1)")
    parser.add_argument("--rate", type=float, default=5.0, help="requests/s per region (default 5)")
    parser.add_argument("--port", type=int, default=0, help="of the admin API (default: any free one)")
    parser.add_argument("--log", type=Path, help="the estate's own log (default DIR/estate.log)")
    arguments = parser.parse_args()
    if not 0 < arguments.rate <= 200:
        parser.error("--rate must be above 0 and at most 200")
    state = StateDir(arguments.state)
    log = (arguments.log or state.root / "estate.log").resolve()
    supervisor = Supervisor(state, arguments.seed, arguments.rate, arguments.port, log)
    try:
        supervisor.run(_announce)
    except AlreadyRunning as running:
        print(f"estate: {running}", file=sys.stderr)
        return 2
    except (ServerFailed, OSError) as failed:
        print(f"estate: {failed}", file=sys.stderr)
        return 1
    return 0


def _announce(info: dict[str, Any]) -> None:
    print(json.dumps(info), flush=True)


if __name__ == "__main__":
    sys.exit(main())
