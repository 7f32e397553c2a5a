"""The embedded stack: a Temporal server, the estate and one worker per role, as child processes that stop with us.

STATE/temporal.db       survives, so that the history of earlier runs can be looked at
STATE/estate/           fresh with every start
STATE/config/           oncall.yaml per role (each worker is told of its own token only), policy.yaml
STATE/approvers/        who may approve
STATE/logs/             what each child says
STATE/embedded-stack    says that the folder is an embedded stack's own
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from temporalio.client import Client

from oncall.cli.children import Child, python
from oncall.cli.estate_admin import EstateAdmin
from oncall.cli.files import write_whole
from oncall.cli.settings import embedded_server, environment
from oncall.config import ENV_CONFIG
from oncall.model.errors import ErrorCode, Terminal
from oncall.temporal.client import connect
from oncall.temporal.embedded import EmbeddedServer
from oncall.temporal.search import ensure_search_attributes

ROLES = ("orchestrate", "investigate", "remediate")
ESTATE_READY_S = 60.0
WORKER_READY_S = 60.0
STOP_S = 20.0
WORKER_STOP_S = 85.0
"""What a worker is given to end: more than it needs at most, for one killed in the middle leaves a failed attempt. With
nothing to do it needs a second."""
MARKER = "embedded-stack"

POLICY = {
    "version": 1,
    "read": "approve",
    "max_grant_s": 4 * 3600,
    "actions": {
        "kill_queries": {"verdict": "approve", "risk": "medium"},
        "disable_flag": {"verdict": "approve", "risk": "low"},
    },
}

SHIFT = {"interval_s": 2, "for_s": 6, "lookback_s": 300, "clear_s": 20, "grant_s": 2 * 3600}
"""The demo's rhythm: faster than the defaults, for an audience that waits."""

Result = TypeVar("Result")
Progress = Callable[[str, float], None]


@dataclass
class Stack:
    """A stack that runs now."""

    state: Path
    server: EmbeddedServer
    client: Client
    estate: EstateAdmin
    estate_info: dict[str, Any]
    config: Path
    children: list[Child] = field(default_factory=list)

    @property
    def telemetry(self) -> Path:
        """The folder of the estate's telemetry."""
        return Path(self.estate_info["telemetry"])

    async def guarded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The work's result; raises Retryable at once when a part of the stack dies under it."""
        task = asyncio.create_task(work)
        deaths = [asyncio.create_task(child.gone()) for child in self.children]
        try:
            await asyncio.wait((task, *deaths), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise next(death.result() for death in deaths if death.done())
            return task.result()
        finally:
            for waiting in (task, *deaths):
                waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _locked(state: Path) -> Any:
    """One stack per state folder: two would share a database file."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = f"{state}: {error.strerror}; choose another folder with --state"
        raise Terminal(ErrorCode.BAD_CONFIG, message) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        message = f"{state}: another embedded stack runs here; stop it or choose another folder with --state"
        raise Terminal(ErrorCode.BAD_CONFIG, message) from None
    finally:
        os.close(handle)


def claim(state: Path) -> None:
    """Marks `state` as an embedded stack's own, whose approvers come and go with its runs.

    Raises Terminal(BAD_CONFIG) for a folder that holds somebody else's approvers or ledger.
    """
    marker = state / MARKER
    if marker.exists():
        return
    # Earlier versions left no marker, but always the estate's folder.
    ours = (state / "estate").is_dir()
    if not ours and ((state / "approvers").exists() or (state / "ledger.db").exists()):
        message = f"{state}: holds approvers or a ledger that no demo, drill or dev made; choose another with --state"
        raise Terminal(ErrorCode.BAD_CONFIG, message)
    try:
        write_whole(marker, "an embedded stack's folder: its approvers are replaced with every run\n")
    except OSError as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{marker}: {error.strerror}") from None


def write_config(state: Path, estate: dict[str, Any]) -> Path:
    """Writes `config/<role>.yaml` for each worker and `config/oncall.yaml` for commands; returns the last.

    Only the investigate worker is told of the read token, only the remediate worker of the write token.
    """
    folder = state / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY, sort_keys=False), encoding="utf-8")
    tokens = {
        "investigate": {"read_token_file": estate["connect_read_token_file"]},
        "remediate": {"write_token_file": estate["connect_write_token_file"]},
    }
    for name in (*ROLES, "oncall"):
        settings = {
            "state": str(state),
            "approvers": str(state / "approvers"),
            "policy": str(folder / "policy.yaml"),
            "connect": {"url": estate["connect"], **tokens.get(name, {})},
            "sources": {"telemetry": estate["telemetry"], "instances": estate["instances"]},
            "shift": SHIFT,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return folder / "oncall.yaml"


@asynccontextmanager
async def running_stack(
    state: Path, seed: int, prepare: Callable[[], None], progress: Progress
) -> AsyncIterator[Stack]:
    """A stack in `state`, stopped again whatever happens. `progress` hears each part with its seconds.

    `prepare` is called once the folder is ours and must leave who may approve in `state/approvers`. Points this
    process's environment at the server while it runs. Raises OncallError with one line saying which part failed and
    where its log is.
    """
    started = time.monotonic()

    def ready(what: str) -> None:
        progress(what, time.monotonic() - started)

    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.enter_context(_locked(state))
        claim(state)
        prepare()
        logs = state / "logs"
        command = python("estate", "--state", str(state / "estate"), "--seed", str(seed))
        estate = await Child.start("the estate", command, {}, logs / "estate.log")
        cleanup.push_async_callback(estate.stop, STOP_S)
        server = await EmbeddedServer.start(state)
        cleanup.push_async_callback(server.stop)
        cleanup.enter_context(environment(embedded_server(server.address)))
        client = await connect()
        await ensure_search_attributes(client)
        ready("Temporal")
        info = await estate.ready(ESTATE_READY_S)
        ready("the estate")
        config = write_config(state, info)
        cleanup.enter_context(environment({ENV_CONFIG: str(config)}))
        workers: list[Child] = []
        cleanup.push_async_callback(_stop_all, workers)
        for role in ROLES:
            extra = {ENV_CONFIG: str(config.with_name(f"{role}.yaml"))}  # and the server's, which ours names now
            name, log = f"the {role} worker", logs / f"{role}.log"
            workers.append(await Child.start(name, python("worker", "--role", role), extra, log))
        for worker in workers:
            await worker.ready(WORKER_READY_S)
        ready("three workers")
        admin = EstateAdmin(info["admin"], Path(info["admin_token_file"]))
        yield Stack(state, server, client, admin, info, config, [estate, *workers])


async def _stop_all(workers: list[Child]) -> None:
    stops: list[Awaitable[None]] = [worker.stop(WORKER_STOP_S) for worker in workers]
    await asyncio.gather(*stops)
