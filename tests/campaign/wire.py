"""A TCP proxy in front of a target that loses the answer to a write, and the write itself if it is told to."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

CHUNK = 65536


@dataclass(frozen=True)
class Protocol:
    """How a write is recognised: the `nth` chunk on a connection that holds `marker`."""

    marker: bytes
    nth: int


HTTP = Protocol(b"PUT ", 1)
POSTGRES = Protocol(b"pg_terminate_backend", 2)
"""asyncpg has a statement described first, and executed in a second message."""


class Wire:
    """Forwards to `target` on loopback. While it `withholds`, the first write on a connection gets no answer; where
    `loses` says so of its first chunk, it does not reach the target either. Whoever sent it cannot tell the two apart.

    `under_way` counts such writes, `refused` the connections that were asked for while the wire was cut.
    """

    def __init__(self, target: int, protocol: Protocol, loses: Callable[[bytes], bool]) -> None:
        self._target = target
        self._protocol = protocol
        self._loses = loses
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut = False
        self.withholds = False
        self.port = 0
        self.under_way = 0
        self.refused = 0

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._end()

    async def cut(self) -> None:
        """Ends every connection, and each new one at once."""
        self._cut = True
        await self._end()

    def mend(self) -> None:
        """Lets everything through."""
        self._cut = self.withholds = False

    async def _end(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            self.refused += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Connections are what this is here to lose, on either side.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, onward = await asyncio.open_connection("127.0.0.1", self._target)
        answers = asyncio.create_task(_pump(back, writer))
        marked, lost = 0, False
        try:
            while chunk := await reader.read(CHUNK):
                marked += self._protocol.marker in chunk
                if self.withholds and marked == self._protocol.nth and not answers.done():
                    answers.cancel()
                    await asyncio.wait((answers,))
                    lost = self._loses(chunk)
                    self.under_way += 1
                if not lost:
                    onward.write(chunk)
                    await onward.drain()
        finally:
            answers.cancel()
            onward.transport.abort() if lost else onward.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
