#!/usr/bin/env python3
"""The command line's door: everything is in `oncall/cli`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command in `sys.argv` and exits with its code (0 done, 1 no, 2 usage, 3 unreachable)."""
    try:
        from oncall.cli.main import leave, run
    except ModuleNotFoundError as missing:
        # Plain words, as nothing of ours can be used yet.
        print(f"error: {missing.name} is not installed for {sys.executable}; use .venv/bin/python", file=sys.stderr)
        sys.exit(2)
    leave(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
