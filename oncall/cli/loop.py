"""Runs a command's coroutine so that every way of being stopped still cleans up."""

import asyncio
import functools
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio.runtime import Runtime, TelemetryConfig

Result = TypeVar("Result")

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@functools.cache
def _quiet_core() -> None:
    """Temporal's core logs to stdout, where a program reads our one JSON document; errors reach us anyway."""
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)), error_if_already_set=False)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """The coroutine's result. SIGINT, SIGTERM and SIGHUP cancel it, once: a second one must not interrupt the
    cleaning up that the first began. Raises KeyboardInterrupt when it was stopped that way."""
    _quiet_core()
    stopped = False

    async def supervised() -> Result:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal stopped
            if not stopped:
                stopped = True
                task.cancel()

        for number in _STOPS:
            loop.add_signal_handler(number, stop)
        return await main

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
