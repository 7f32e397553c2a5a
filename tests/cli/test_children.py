"""Contract: a child that fails says so with its log; one that runs stops when asked, and dies with its parent."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from oncall.cli.children import Child
from oncall.model.errors import ErrorCode, Retryable

READY = "import json, sys, time; print('noise'); print(json.dumps({'ready': True}), flush=True); "
SLEEP = READY + "time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); " + SLEEP
)


async def start(code: str, log: Path) -> Child:
    return await Child.start("the child", (sys.executable, "-c", code), {"EXTRA": "1"}, log)


async def test_ready_is_the_first_json_object_and_what_follows_goes_to_the_log(tmp_path: Path) -> None:
    child = await start(READY + "print('later', flush=True); print('oops', file=sys.stderr)", tmp_path / "l" / "log")
    assert await child.ready(20) == {"ready": True}
    failure = await child.gone()
    await child.stop(5)
    assert failure.code is ErrorCode.TARGET_UNREACHABLE
    assert "stopped with code 0 while it was needed" in failure.message
    assert set(child.log.read_text().split()) == {"later", "oops"}


async def test_a_child_that_dies_early_is_one_line_with_its_last_words_and_its_log(tmp_path: Path) -> None:
    child = await start("import sys; sys.exit('error: vault\\x1b[31m is down')", tmp_path / "log")
    with pytest.raises(Retryable) as failed:
        await child.ready(20)
    await child.stop(5)
    assert "stopped with code 1 before it was ready (error: vault\\x1b[31m is down)" in failed.value.message
    assert str(tmp_path / "log") in failed.value.message


async def test_a_silent_child_times_out_and_is_stopped(tmp_path: Path) -> None:
    child = await start("import time; time.sleep(600)", tmp_path / "log")
    with pytest.raises(Retryable, match="was not ready within 0 s"):
        await child.ready(0.2)
    await child.stop(5)
    assert not psutil.pid_exists(child.pid)


async def test_a_child_that_will_not_stop_is_ended_with_everything_below_it(tmp_path: Path) -> None:
    child = await start(DEAF, tmp_path / "log")
    await child.ready(20)
    family = [child.pid, *(p.pid for p in psutil.Process(child.pid).children())]
    assert len(family) == 2
    await child.stop(0.5)
    await _gone(family)


PARENT = """
import asyncio, os, sys
from pathlib import Path
from oncall.cli.children import Child
async def main():
    child = await Child.start("c", (sys.executable, "-c", sys.argv[1]), {}, Path(sys.argv[2]))
    await child.ready(20)
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, SLEEP, str(tmp_path / "log")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await _gone([pid])


async def _gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        await asyncio.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
