"""A real Temporal server on which days pass in seconds.

Each workflow has a virtual clock of its own. What there is to know about it (server 1.32):

- A clock moves only when it is told to (`Clocks.forward`), stops at that moment, and goes at the pace of the wall
  between. A workflow that a shift opens starts at the shift's time and stands apart from then on.
- It cannot skip while an activity, a signal to another workflow or a *child that this run started* is under way. A run
  after a continue-as-new has no children of its own: so the clock of a shift whose incident stays open moves on only
  once that run has handed over, and until then it goes at the pace of the wall.
- An activity's `scheduled_time` is by the clock of its workflow; everything else an activity knows is the wall's.
- The server looks for due timers once a second; asked to look every 10 ms, a skipped timer costs 20 ms instead of 1 s.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import TimeSkipper, TimeSkippingConfig, WorkflowEnvironment

from oncall.temporal.embedded import binary
from oncall.temporal.search import ensure_search_attributes


def _flags(*settings: str) -> tuple[str, ...]:
    return tuple(word for setting in settings for word in ("--dynamic-config-value", setting))


FLAGS = _flags("frontend.WorkflowTimeSkippingEnabled=true", 'history.timerProcessorMaxTimeShift="10ms"')
"""What makes a development server skip time, and fast."""


class Clocks:
    """The server's clocks, and a client whose workflows have one."""

    def __init__(self, client: Client) -> None:
        # Inherited, skipping would be without bounds: an incident would be past its deadlines at once.
        self._skipper = TimeSkipper(client, config=TimeSkippingConfig(enabled=False, disable_propagation=True))
        self.client = self._skipper.client

    async def now(self, workflow_id: str) -> datetime:
        """What time it is for a workflow."""
        return await self._skipper.get_current_time(self._handle(workflow_id))

    async def forward(self, workflow_id: str, to: datetime) -> bool:
        """Move a workflow's clock forward to `to`, through whatever it does on the way. False when it ended first."""
        ahead = to - await self.now(workflow_id)
        if ahead <= timedelta(0):
            return True
        return await self._skipper.fast_forward(self._handle(workflow_id), ahead)

    def _handle(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        # Of the chain, not of a run.
        return self.client.get_workflow_handle(workflow_id)


@asynccontextmanager
async def skipping_server(*settings: str) -> AsyncIterator[Clocks]:
    """A server of its own. `settings` are further `key=value` of its dynamic configuration."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=binary(),
        dev_server_extra_args=[*FLAGS, *_flags(*settings)],
        data_converter=pydantic_data_converter,
    ) as env:
        await ensure_search_attributes(env.client)
        yield Clocks(env.client)


def virtual_now() -> datetime:
    """Within an activity: when its workflow asked for it, by that workflow's clock."""
    return activity.info().scheduled_time
