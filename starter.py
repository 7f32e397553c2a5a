#!/usr/bin/env python3
"""The command line's door: everything is in `oncall/cli`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command in `sys.argv` and exits with its code (0 done, 1 no, 2 usage, 3 unreachable)."""
    from oncall.cli.main import leave, run

    leave(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
