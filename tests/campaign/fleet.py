"""The workers and the Temporal server under a supervisor that starts at once again whatever ends, as systemd would."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from oncall.cli.children import Child, python
from oncall.cli.stack import ROLES, WORKER_READY_S
from oncall.config import ENV_CONFIG
from oncall.model.errors import OncallError
from oncall.temporal.embedded import EmbeddedServer
from tests.campaign.points import SERVER

STOP_S = 20.0
PAUSE_S = 0.1
PORT_PATIENCE_S = 15.0


class Life:
    """A process that runs, held by a descriptor: its pid may be somebody else's by the time that it is used."""

    def __init__(
        self,
        pid: int,
        ready: Callable[[], Awaitable[object]],
        gone: Callable[[], Awaitable[str]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.ready, self.gone, self.stop = ready, gone, stop
        self._descriptor = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal, from any thread; false when the process is gone already."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Lets go of the descriptor."""
        os.close(self._descriptor)


@dataclass
class Process:
    """One supervised process. `launch` starts it, and is told for the how-manieth time.

    While `down` is set it is not started again. `struck` counts signals of ours that hit it, `deaths` are the ends that
    none of them caused, `start_s` how long it took to be ready each time.
    """

    name: str
    launch: Callable[[int], Awaitable[Life]]
    life: Life | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    down: threading.Event = field(default_factory=threading.Event)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    struck: int = 0
    deaths: list[str] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)


class Fleet:
    """Processes that are kept running while the block lasts."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._processes = {process.name: process for process in processes}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Fleet":
        self._tasks = [asyncio.create_task(self._keep(process)) for process in self._processes.values()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            # Held for good: what is being started now gets its life, and nothing is started after it.
            await process.starting.acquire()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The server last: a worker drains into it.
        lives = {name: process.life for name, process in self._processes.items() if process.life is not None}
        await asyncio.gather(*(life.stop() for name, life in lives.items() if name != SERVER))
        if SERVER in lives:
            await lives[SERVER].stop()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL, keep_down: bool = False) -> bool:
        """Signals a process, from any thread; false when there was none to signal. `keep_down` until `release`."""
        process = self._processes[name]
        if keep_down:
            process.down.set()
        life = process.life
        hit = life is not None and life.send(number)
        process.struck += hit
        return hit

    def release(self, *names: str) -> None:
        """Let processes that were kept down be started again; from any thread."""
        for name in names:
            self._processes[name].down.clear()

    async def gone(self, names: Iterable[str]) -> None:
        """Waits until those of these processes that are kept down are gone."""
        held = [process for name in names if (process := self._processes[name]).down.is_set()]
        while any(process.life is not None for process in held):
            await asyncio.sleep(0.005)

    async def replace(self, name: str) -> None:
        """Kills a process that may have to be another one from now on, and waits until its successor is ready."""
        self.kill(name, keep_down=True)
        await self.gone([name])
        self.release(name)
        await self.ready(WORKER_READY_S)

    def is_ready(self, name: str) -> bool:
        """Whether a process has said that it is ready."""
        return self._processes[name].ready.is_set()

    async def ready(self, timeout_s: float) -> None:
        """Waits until everything runs. Raises TimeoutError naming what does not, or what ended the supervision."""
        deadline = time.monotonic() + timeout_s
        while absent := [name for name, process in self._processes.items() if not process.ready.is_set()]:
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not running after {timeout_s:.0f} s: {', '.join(absent)}")
            await asyncio.sleep(0.02)

    def struck(self) -> Counter[str]:
        """How often each process was hit."""
        return Counter({name: process.struck for name, process in self._processes.items()})

    def deaths(self) -> list[str]:
        """Ends that no signal of ours caused, in words."""
        return [f"{name}: {death}" for name, process in self._processes.items() for death in process.deaths]

    def start_s(self, name: str) -> list[float]:
        """How long each start took until the process was ready, seconds."""
        return self._processes[name].start_s

    async def _keep(self, process: Process) -> None:
        starts = 0
        while True:
            if process.down.is_set():
                await asyncio.sleep(0.005)
                continue
            async with process.starting:
                starts += 1
                began, struck = time.monotonic(), process.struck
                life = process.life = await process.launch(starts)
            waiting = asyncio.create_task(_note_ready(process, life, began))
            end = await life.gone()
            await waiting
            process.ready.clear()
            process.life = None
            life.close()
            if process.struck == struck:
                process.deaths.append(end)
                await asyncio.sleep(PAUSE_S)


async def _note_ready(process: Process, life: Life, began: float) -> None:
    with contextlib.suppress(OncallError):
        await life.ready()
        process.start_s.append(time.monotonic() - began)
        process.ready.set()


async def _already() -> None:
    """Ready."""


def _of(child: Child, ready: Callable[[], Awaitable[object]]) -> Life:
    async def gone() -> str:
        return (await child.gone()).message

    async def stop() -> None:
        await child.stop(STOP_S)

    return Life(child.pid, ready, gone, stop)


Commands = dict[str, tuple[str, ...]]
"""What runs as which role; looked at whenever one is started."""


def real() -> Commands:
    """The product's own workers."""
    return {role: python("worker", "--role", role) for role in ROLES}


def worker(role: str, commands: Commands, config: Path, logs: Path, first: Child | None = None) -> Process:
    """A worker of `role`, told of `config/<role>.yaml`; `first` is one that runs already."""
    env = {ENV_CONFIG: str(config / f"{role}.yaml")}

    async def launch(number: int) -> Life:
        if number == 1 and first is not None:
            return _of(first, _already)
        log = logs / f"{role}-{number}.log"
        child = await Child.start(f"the {role} worker", commands[role], env, log)
        return _of(child, lambda: child.ready(WORKER_READY_S))

    return Process(role, launch)


def server(state: Path, first: EmbeddedServer) -> Process:
    """The Temporal server on its database and its port; `first` is the one that runs now."""

    async def launch(number: int) -> Life:
        running = first if number == 1 else await _again(state, first)
        process = running.process

        async def gone() -> str:
            return f"the Temporal server stopped with code {await process.wait()}"

        return Life(process.pid, _already, gone, running.stop)

    return Process(SERVER, launch)


async def _again(state: Path, first: EmbeddedServer) -> EmbeddedServer:
    """A server where the workers look for it: on another port nobody would find it."""
    port, ui_port = (int(address.rpartition(":")[2]) for address in (first.address, first.ui_url))
    deadline = time.monotonic() + PORT_PATIENCE_S
    while True:
        running = await EmbeddedServer.start(state, port, ui_port)
        if running.address == first.address:
            return running
        await running.stop()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{first.address} has been taken by somebody else")
        await asyncio.sleep(0.2)
