"""A child process that says when it is ready, writes its log to a file and never outlives us."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oncall.model.errors import ErrorCode, Retryable
from oncall.rules.text import clipped
from oncall.temporal.embedded import die_with_parent

_LINE_BYTES = 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs one of our modules with this interpreter, wherever we were started from."""
    # -P: a file named like ours in the working directory must not be run instead.
    return (sys.executable, "-P", "-m", module, *arguments)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment with `extra`, and our modules on the child's path."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


class Child:
    """One running child; `log` holds its stderr and what it prints after its ready line."""

    def __init__(self, name: str, log: Path, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._drain: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> "Child":
        """Starts it in its own session: a Ctrl-C in our terminal is ours alone, and we stop it in order."""
        log.parent.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        log.unlink(missing_ok=True)
        # Appending, as `_to_log` does: two writers with positions of their own would overwrite each other.
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=child_environment(env),
                start_new_session=True,
                limit=_LINE_BYTES,
                preexec_fn=lambda: die_with_parent(parent),
            )
        return cls(name, log, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self, timeout_s: float) -> dict[str, Any]:
        """The JSON object it prints when it is ready.

        Raises Retryable(TARGET_UNREACHABLE) naming the log when it dies or says nothing within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._ready_line()
        except TimeoutError:
            raise self._failed(f"was not ready within {timeout_s:.0f} s") from None
        self._drain = asyncio.create_task(self._to_log())
        return line

    async def _ready_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    return value
        code = await self._process.wait()
        raise self._failed(f"stopped with code {code} before it was ready")

    async def _to_log(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            while chunk := await self._process.stdout.read(_LINE_BYTES):
                log.write(chunk)

    def _failed(self, what: str) -> Retryable:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            what += f" ({clipped(lines[-1], 200)})" if lines else ""
        return Retryable(ErrorCode.TARGET_UNREACHABLE, f"{self.name} {what}; see {self.log}")

    async def ended(self) -> int:
        """Waits until it ends; its exit code, negative for a signal."""
        return await self._process.wait()

    async def gone(self) -> Retryable:
        """Waits until it ends, and says that it did."""
        code = await self.ended()
        return self._failed(f"stopped with code {code} while it was needed")

    async def stop(self, timeout_s: float) -> None:
        """Asks it to stop; after `timeout_s` ends it and everything below it."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), timeout_s)
            except TimeoutError:
                _kill_tree(self._process.pid)
                await self._process.wait()
        if self._drain is not None:
            await self._drain


def _kill_tree(pid: int) -> None:
    # Here and not above: psutil comes with the demo extra, and other commands must work without it.
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (*root.children(recursive=True), root):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
