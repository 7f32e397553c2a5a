"""Processes: forking from the warmed parent, spawning servers as an unprivileged user, ending both.

Nothing here may outlive the estate. Every child asks the kernel for a signal at its parent's death; what even that
misses (a postmaster killed with SIGKILL) the next start cleans up from the recorded pids.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypedDict

UNPRIVILEGED_ID = 65534
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signum: int) -> None:
    """Asks the kernel to send this process `signum` when the thread that forked it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def set_name(name: str) -> None:
    """Shows `name` (15 characters) in ps and top instead of `python`."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def fork(name: str, body: Callable[[], None], log: Path) -> int:
    """Runs `body` in a forked child with its output appended to `log`; returns the child's pid.

    The child ends with status 0 when `body` returns and 1 when it raises; it dies with its parent.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Ctrl-C reaches the whole foreground group; the parent decides the order in which things stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        set_name(name)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        body()
        status = 0
    except BaseException:  # noqa: BLE001 - the fork must never return into the parent's stack
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


class Demotion(TypedDict, total=False):
    """The arguments of `Popen` that `demotion` sets."""

    user: int
    group: int
    extra_groups: list[int]


def demotion() -> Demotion:
    """Popen arguments that drop root, which PostgreSQL refuses to run as; nothing for an ordinary user."""
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED_ID, "group": UNPRIVILEGED_ID, "extra_groups": []}


def give_away(path: Path) -> None:
    """Makes a path the unprivileged user's, when running as root."""
    if os.geteuid() == 0:
        os.chown(path, UNPRIVILEGED_ID, UNPRIVILEGED_ID)


def spawn_server(command: Sequence[str | Path], output: IO[bytes], death_signal: int) -> subprocess.Popen[bytes]:
    """Starts a server unprivileged, in its own session, to be sent `death_signal` when this process dies."""
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
        # Dropping privileges clears the death signal; preexec_fn runs after that.
        preexec_fn=lambda: die_with_parent(death_signal),
        **demotion(),
    )
    return process


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; with the pid it names a process uniquely.

    None if there is none (or it is a zombie).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else int(fields[19])


def children_of(pid: int) -> list[int]:
    """Direct children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_tree(pid: int) -> list[int]:
    """SIGKILLs a process and everything below it; returns their pids, not all of them gone yet."""
    family = [pid]
    for member in family:
        family.extend(children_of(member))
    for member in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    return family


def wait_gone(pids: Sequence[int], timeout_s: float) -> list[int]:
    """Waits until none of the processes exists any more; returns those that still do."""
    deadline = time.monotonic() + timeout_s
    left = list(pids)
    while left and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        left = [pid for pid in left if start_ticks(pid) is not None]
        if left:
            time.sleep(0.01)
    return left


def remove_shared_memory(postmaster_pid_file: Path) -> None:
    """Removes the System V segment that a killed postmaster left, as named in line 7 of its pid file."""
    try:
        segment = int(postmaster_pid_file.read_text().splitlines()[6].split()[1])
    except (OSError, IndexError, ValueError):
        return
    ipc_rmid = 0
    _libc.shmctl(segment, ipc_rmid, None)
