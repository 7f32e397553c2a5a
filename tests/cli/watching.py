"""Runs a command that goes on for a while: its lines as they come, or its screen in a real terminal."""

import asyncio
import fcntl
import json
import os
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.cli.command import STARTER, surroundings

PATIENCE_S = 45.0
_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


class Piped:
    """A running command whose output is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, fits: Callable[[str], bool]) -> str:
        """The next line that fits."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line)
                if fits(line):
                    return line
        raise AssertionError(f"it ended before: {self.lines}, {await self.errors()}")

    async def document(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next JSON document that fits."""
        found: dict[str, Any] = json.loads(await self.until(lambda line: fits(json.loads(line))))
        return found

    async def rest(self) -> list[str]:
        """All lines, once it has ended."""
        assert self.process.stdout is not None
        self.lines += (await asyncio.wait_for(self.process.stdout.read(), PATIENCE_S)).decode().splitlines(True)
        return self.lines

    async def errors(self) -> str:
        """All that it said on stderr, once it has ended."""
        assert self.process.stderr is not None
        return (await asyncio.wait_for(self.process.stderr.read(), PATIENCE_S)).decode()

    async def code(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def piped(
    folder: Path, address: str, *arguments: str, stdout: int = asyncio.subprocess.PIPE
) -> AsyncIterator[Piped]:
    """`starter.py ARGUMENTS` with pipes for a terminal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(STARTER), *arguments),
        cwd=folder,
        # A pipe stays one, whatever rich is told.
        env=surroundings(folder, {"TEMPORAL_ADDRESS": address, "FORCE_COLOR": "1"}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Piped(process)
    finally:
        await _end(process)


class Terminal:
    """A terminal in which a command runs. `shown` is every byte that was written to it."""

    def __init__(self, device: int, process: asyncio.subprocess.Process, before: list[Any]) -> None:
        self._device = device
        self.process = process
        self._before = before
        self.shown = ""
        self._raw = b""

    def read(self) -> None:
        """Take what has been written."""
        try:
            self._raw += os.read(self._device, 65536)
        except OSError:  # EIO: the command has ended, and nothing more comes
            asyncio.get_running_loop().remove_reader(self._device)
        self.shown = self._raw.decode(errors="replace")

    def screen(self) -> list[str]:
        """The lines of the last whole frame, or of what was printed after the last frame."""
        frames = self.shown.split("\x1b[H")
        frame = frames[-2] if len(frames) > 2 and self.is_open else frames[-1]
        return [line.rstrip() for line in _CSI.sub("", frame).replace("\r", "").split("\n")]

    @property
    def is_open(self) -> bool:
        """Whether the command shows a screen of its own (DEC private mode 1049)."""
        return self.shown.rfind("\x1b[?1049h") > self.shown.rfind("\x1b[?1049l")

    @property
    def hides_cursor(self) -> bool:
        """Whether the cursor is hidden (DECTCEM)."""
        return self.shown.rfind("\x1b[?25l") > self.shown.rfind("\x1b[?25h")

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal is left as it was found."""
        settings = termios.tcgetattr(self._device)
        return not self.is_open and not self.hides_cursor and settings == self._before

    async def until(self, text: str) -> str:
        """The screen, once it holds `text`."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in "\n".join(self.screen()):
                await asyncio.sleep(0.05)
        return "\n".join(self.screen())

    async def until_gone(self, text: str) -> None:
        """Wait until the screen holds `text` no longer."""
        async with asyncio.timeout(PATIENCE_S):
            while text in "\n".join(self.screen()):
                await asyncio.sleep(0.05)

    def press(self, keys: str) -> None:
        """What a person types."""
        os.write(self._device, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Make it that large; the kernel tells the command (SIGWINCH)."""
        fcntl.ioctl(self._device, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close it under the command, as a lost connection does."""
        if self._device >= 0:
            asyncio.get_running_loop().remove_reader(self._device)
            os.close(self._device)
            self._device = -1

    async def code(self) -> int:
        """The exit code of the command."""
        code = await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        await asyncio.sleep(0.1)
        return code


@asynccontextmanager
async def terminal(
    folder: Path, env: Mapping[str, str], *arguments: str, columns: int = 80, rows: int = 24
) -> AsyncIterator[Terminal]:
    """`starter.py ARGUMENTS` in a terminal of its own, of that size."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    before = termios.tcgetattr(its)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(STARTER), *arguments),
        cwd=folder,
        env=surroundings(folder, {"TERM": "xterm-256color", **env}),
        stdin=its,
        stdout=its,
        stderr=its,
        # A session with this as its terminal, so that a Ctrl-C typed here is a SIGINT there.
        preexec_fn=lambda: os.login_tty(os.dup(its)),
    )
    os.close(its)
    opened = Terminal(ours, process, before)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, opened.read)
    try:
        yield opened
    finally:
        await _end(process)
        opened.hang_up()
