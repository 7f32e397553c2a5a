"""What the estate costs: time to ready, memory, and processor at rest."""

import asyncio

from benchmarks.lab import Lab, running_estate
from benchmarks.processes import cpu_seconds, pss_bytes, tree
from benchmarks.row import Row
from benchmarks.statistics import median

NAME = "estate"
SETTLE_S = 8.0
REST_S = 20.0
GIGABYTE = 1e9


async def run(lab: Lab) -> list[Row]:
    """Several starts; then one estate, left alone, looked at over `REST_S`."""
    ready = []
    for number in range(lab.runs - 1):
        async with running_estate(lab.state / f"estate-{number}", lab.seed) as started:
            ready.append(started.ready_s)
        lab.say(f"ready after {ready[-1]:.2f} s")
    estate = await lab.estate()
    ready.append(estate.ready_s)
    await asyncio.sleep(SETTLE_S)
    pid, shares, sizes = estate.child.pid, [], []
    loop = asyncio.get_running_loop()
    for _ in range(lab.runs):
        sizes.append((await asyncio.to_thread(pss_bytes, pid)) / GIGABYTE)
        before, since = await asyncio.to_thread(cpu_seconds, pid), loop.time()
        await asyncio.sleep(REST_S / lab.runs)
        after = await asyncio.to_thread(cpu_seconds, pid)
        shares.append(100 * (after - before) / (loop.time() - since))
    count = len(tree(pid))
    lab.say(f"{count} processes, {sizes[-1]:.2f} GB PSS, {sum(shares) / len(shares):.0f} % of one core")
    note = f"one estate of {count} processes at its ordinary load, {lab.runs} looks within {REST_S:.0f} s"
    return [
        Row(NAME, "estate: ready", median(ready), "s", 8.0, "from `python -m estate` to its ready line"),
        Row(NAME, "estate: memory (PSS)", median(sizes), "GB", 1.2, note),
        Row(NAME, "estate: processor at rest", median(shares), "% of a core", 40.0, note),
    ]
