"""A TCP proxy in front of PostgreSQL that loses connections at the worst moment."""

import asyncio
from types import TracebackType

EXECUTE = b"E"


class Proxy:
    """Forwards to `target` on loopback.

    `cut_after_executes`: the first connection is cut right after that many Execute messages have been forwarded, so
    that the server acts and its answer is lost. `then_refuse`: no further connection is let through. `silent`:
    accepts and never answers.
    """

    def __init__(
        self, target: int, cut_after_executes: int | None = None, then_refuse: bool = False, silent: bool = False
    ) -> None:
        self._target = target
        self._cut_after = cut_after_executes
        self._then_refuse = then_refuse
        self._silent = silent
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._silent:
                await asyncio.sleep(60)
            if self.cuts and self._then_refuse:
                return
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._target)
            answers = asyncio.create_task(_pump(back_reader, writer))
            try:
                await self._forward(reader, back_writer, answers)
            finally:
                answers.cancel()
                back_writer.close()
        finally:
            writer.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, answers: "asyncio.Task[None]"
    ) -> None:
        executes = 0
        first = await _startup(reader)
        onward.write(first)
        while True:
            try:
                kind = await reader.readexactly(1)
                size = await reader.readexactly(4)
                body = await reader.readexactly(int.from_bytes(size) - 4)
            except asyncio.IncompleteReadError:
                return
            onward.write(kind + size + body)
            executes += kind == EXECUTE
            if not self.cuts and executes == self._cut_after and kind == b"S":
                # The server has the whole batch; from here on the client hears nothing.
                answers.cancel()
                await onward.drain()
                await asyncio.sleep(0.2)
                self.cuts += 1
                return


async def _startup(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size) - 4)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
