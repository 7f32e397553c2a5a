"""A small cache in which concurrent requests for one key share one computation.

The 150 agents of a wave ask for the same window at the same moment; without this the source would be read 150
times.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Keeps the `capacity` most recently used results. A failure is not kept: the next request tries again.

    A waiter that is cancelled does not cancel the computation the others wait for. Of one event loop only: results
    of another loop are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tasks: OrderedDict[Key, asyncio.Task[Value]] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def get(self, key: Key, compute: Callable[[], Awaitable[Value]]) -> Value:
        """The value for `key`, computed at most once among concurrent callers; raises what `compute` raised."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._tasks.clear()
            self._loop = loop
        task = self._tasks.get(key)
        if task is None:

            async def run() -> Value:
                return await compute()

            task = loop.create_task(run())
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        self._tasks.move_to_end(key)
        while len(self._tasks) > self._capacity:
            self._tasks.popitem(last=False)
        return await asyncio.shield(task)

    def _finished(self, key: Key, task: asyncio.Task[Value]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._tasks.get(key) is task:
            del self._tasks[key]
