"""The worker's door: `python worker.py --role investigate`."""

import argparse
import asyncio
import logging
import os
import sys

from oncall.config import load_config
from oncall.model.errors import OncallError, Retryable
from oncall.temporal.roles import Role
from oncall.temporal.serve import serve


def main() -> int:
    """Run until told to stop. 0 drained, 2 wrong usage or configuration, 3 a needed service is unreachable."""
    parser = argparse.ArgumentParser(
        description="Polls Temporal for one role, or all.", epilog="example: python worker.py --role investigate"
    )
    parser.add_argument("--role", choices=["all", *Role], default="all")
    chosen = parser.parse_args().role
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(tuple(Role) if chosen == "all" else (Role(chosen),), load_config()))
    except OncallError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 3 if isinstance(error, Retryable) else 2
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: tearing down while an abandoned connection attempt is in flight can crash the interpreter, and its
    # signal would replace our exit code.
    os._exit(status)
