"""Answers what a shift or an incident of the embedded stack asks: shows it, asks the person, signs, sends."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from oncall.cli.deciding import make_decision, send
from oncall.cli.evidence import check_evidence
from oncall.cli.request_view import read_pending, what_is_asked
from oncall.cli.stack import Stack
from oncall.cli.story import Story
from oncall.config import load_config
from oncall.model.access import AccessRequest
from oncall.temporal import gates

Ask = Callable[[AccessRequest], Awaitable[bool]]
"""The person's yes or no."""


async def answer(stack: Stack, workflow_id: str, key: Path, story: Story, ask: Ask, answered: set[str]) -> set[str]:
    """Answer everything that waits there but `answered`; the ids of the requests that were answered now."""
    done = set()
    for pending in await gates.approvals(stack.client, workflow_id):
        if pending.request_id in answered:
            continue
        request = read_pending(pending)
        story.close()
        story.request(pending, request)
        approved = await ask(request)
        if approved:
            await asyncio.to_thread(check_evidence, request, load_config(stack.config))
        reason = "demo" if approved else "declined in the demo"
        decision = await asyncio.to_thread(make_decision, pending, approved, reason, key)
        result = await send(stack.client, pending, decision)
        became = f"{result.outcome}: {result.detail}" if result.detail else result.outcome
        story.say(f"signed {'YES' if approved else 'NO'} to {what_is_asked(request)}; {became}")
        done.add(pending.request_id)
    return done
