"""The rehearsal's shift: somebody goes on call, the swarm watches, and what it notices is waited for."""

import asyncio
import time
from pathlib import Path

from oncall.cli.answering import Ask, answer
from oncall.cli.on_call import TEAM, asked, make_opening
from oncall.cli.stack import Stack
from oncall.cli.story import Story
from oncall.config import load_config
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.names import shift_workflow_id
from oncall.model.shift import FollowedIncident, ShiftPhase, ShiftStatus
from oncall.temporal import shifts

SHIFT = shift_workflow_id(TEAM)
WATCHING_WITHIN_S = 30.0
NOTICED_WITHIN_S = 60.0
_POLL_S = 0.3


async def go_on_call(stack: Stack, key: Path, story: Story, ask: Ask) -> None:
    """Go on call, unless somebody is: ask for READ access, and wait for the first look.

    Raises Terminal(GRANT_UNKNOWN) when READ access is not granted.
    """
    story.chapter("Somebody goes on call")
    await shifts.start(stack.client, make_opening(load_config(stack.config), TEAM, key))
    now = await asked(stack.client, SHIFT)
    if now.waiting_for:
        await answer(stack, SHIFT, key, story, ask, set())
    deadline = time.monotonic() + WATCHING_WITHIN_S
    while True:
        now = await shifts.status(stack.client, SHIFT)
        if now.phase is ShiftPhase.OFF:
            raise Terminal(ErrorCode.GRANT_UNKNOWN, f"nothing is watched: {now.ended}")
        if now.last_look is not None:
            break
        if time.monotonic() > deadline:
            message = f"the shift did not look within {WATCHING_WITHIN_S:.0f} s; see {stack.state / 'logs'}"
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, message)
        await asyncio.sleep(_POLL_S)
    until = f"{now.grant.expires_at:%H:%M:%S} UTC" if now.grant else "nobody knows when"
    story.say(f"on call until {until}: watches {now.last_look.services} services every {now.interval_s:g} s")


async def noticed(stack: Stack) -> FollowedIncident | None:
    """The incident that the shift opens by itself next; None when it opens none within NOTICED_WITHIN_S."""
    before = (await shifts.status(stack.client, SHIFT)).opened
    deadline = time.monotonic() + NOTICED_WITHIN_S
    while time.monotonic() < deadline:
        now = await _status(stack)
        if now is not None and now.opened > before and now.open:
            return now.open[-1]
        await asyncio.sleep(_POLL_S)
    return None


async def _status(stack: Stack) -> ShiftStatus | None:
    try:
        return await shifts.status(stack.client, SHIFT)
    except Retryable:
        # A query that a busy worker was too slow for is asked again.
        return None
