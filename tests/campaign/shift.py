"""The shift of a campaign: it watches while everything around it dies, and opens the incident by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from oncall.cli.deciding import make_decision
from oncall.cli.on_call import TEAM, go_off, make_opening
from oncall.cli.stack import Stack
from oncall.config import load_config
from oncall.model.errors import OncallError
from oncall.model.names import shift_workflow_id
from oncall.model.shift import FollowedIncident, ShiftPhase, ShiftStatus
from oncall.temporal import gates, shifts

SHIFT = shift_workflow_id(TEAM)
WATCHING_S = 60.0
NOTICED_S = 180.0
"""The shift's workers die meanwhile: a fault that is not an incident by then is lost."""

QUIET_LOOKS = 2
_AGAIN_S = 0.3

Answer = TypeVar("Answer")


async def go_on_call(stack: Stack, key: Path) -> ShiftStatus:
    """Go on call and say yes; the shift's status once it has looked and seen nothing."""
    opening = make_opening(load_config(stack.config), TEAM, key)
    await _whatever_dies(lambda: shifts.start(stack.client, opening))
    deadline = time.monotonic() + WATCHING_S
    answered: set[str] = set()
    while True:
        now = await _whatever_dies(lambda: shifts.status(stack.client, SHIFT))
        if now.last_look is not None and not now.last_look.groups and now.looks >= QUIET_LOOKS:
            return now
        if now.phase is ShiftPhase.OFF or time.monotonic() > deadline:
            raise TimeoutError(f"the shift does not watch: {now.phase} {now.ended or ''}")
        for request in set(now.waiting_for) - answered:
            answered.add(request)
            for pending in await gates.approvals(stack.client, SHIFT):
                decision = await asyncio.to_thread(make_decision, pending, True, "campaign", key)
                await gates.decide(stack.client, SHIFT, decision)
        await asyncio.sleep(_AGAIN_S)


async def noticed(stack: Stack) -> FollowedIncident | None:
    """The incident that the shift has opened, whatever dies meanwhile; None when there is none within NOTICED_S."""
    deadline = time.monotonic() + NOTICED_S
    while time.monotonic() < deadline:
        now = await _whatever_dies(lambda: shifts.status(stack.client, SHIFT))
        if now.open and now.open[-1].run_id:
            return now.open[-1]
        await asyncio.sleep(_AGAIN_S)
    return None


async def end(stack: Stack, key: Path) -> ShiftStatus:
    """The shift's last status, once it has been stopped."""
    return await _whatever_dies(lambda: go_off(stack.client, SHIFT, key, "campaign"))


async def _whatever_dies(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer, once there is somebody to give it."""
    while True:
        try:
            return await ask()
        except OncallError:
            await asyncio.sleep(_AGAIN_S)
