"""Runs the real command line as people and programs do: another process, its output and its exit code."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STARTER = Path(__file__).resolve().parents[2] / "starter.py"
# COLUMNS and LINES too: a test runner sets them, and a terminal of our own has a size of its own.
_OURS = ("ONCALL_", "TEMPORAL_", "XDG_CONFIG_HOME", "COLUMNS", "LINES")


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line it failed with."""
        (line,) = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in self.stderr + self.stdout
        return line


def surroundings(folder: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: a home of its own and none of this process's settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**clean, "HOME": str(folder), **(env or {})}


async def oncall(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> Ran:
    """`starter.py ARGUMENTS` in `folder`, with a home of its own and none of this process's settings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(STARTER), *arguments),
        cwd=folder,
        env=surroundings(folder, env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(), timeout_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, stdout.decode(), stderr.decode())
