"""The load generator: steady requests to each region's gateway, going through the routes in turn."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import aiohttp

from estate.topology import ENTITIES, GATEWAY, ROUTES, SERVICES

_TIMEOUT_S = 10.0


def draw_entity(draw: random.Random) -> int:
    """An entity id: a few are popular, so that the caches have something to hit."""
    return 1 + int(ENTITIES * draw.random() ** 3)


async def generate(gateways: dict[str, str], rate_per_s: float, seed: int) -> None:
    """Sends `rate_per_s` requests a second to each region's gateway until killed."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(
            *(
                _region(session, gateway, rate_per_s, random.Random(f"load:{seed}:{region}"))
                for region, gateway in gateways.items()
            )
        )


async def _region(session: aiohttp.ClientSession, gateway: str, rate_per_s: float, draw: random.Random) -> None:
    running: set[asyncio.Task[None]] = set()
    due = time.monotonic() + draw.random() / rate_per_s
    sent = 0
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        # Open loop: what is slow does not slow the next request down, but a stall is not caught up in a burst.
        due = max(due + 1 / rate_per_s, time.monotonic() - 1.0)
        route = ROUTES[sent % len(ROUTES)]
        sent += 1
        url = f"{gateway}/{route}?id={draw_entity(draw)}"
        method = SERVICES[GATEWAY].operations[route].method
        task = asyncio.create_task(_request(session, method, url))
        running.add(task)
        task.add_done_callback(running.discard)


async def _request(session: aiohttp.ClientSession, method: str, url: str) -> None:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.request(method, url) as response:
            await response.read()
