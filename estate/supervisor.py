"""The supervisor: starts everything, restarts what crashes, and leaves nothing behind.

It stays without threads and without an event loop, because it forks every other process from itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from estate.credentials import Credentials
from estate.flagset import flag_specs, flags_of
from estate.postgres import Postgres, ServerFailed
from estate.processes import fork, kill_tree, wait_gone
from estate.sockets import listen, port_of, url_of
from estate.statedir import StateDir, write_atomically
from estate.topology import GATEWAY, REGIONS, SERVICES, catalogue
from estate.valkey import Valkeys

_READY_TIMEOUT_S = 30.0
_PARENT_CHECK_S = 0.1
_BACKOFF_S = 0.2


class Stop(BaseException):
    """Raised by a signal, or when the parent is gone, wherever the supervisor is."""


@dataclass
class Child:
    """A forked process that is to be kept running."""

    name: str
    body: Callable[[], None]
    region: str = ""
    service: str = ""
    pid: int = 0
    restarts: int = -1
    started_at: float = 0.0
    restart_at: float = 0.0


class Supervisor:
    """One estate."""

    def __init__(self, state: StateDir, seed: int, rate_per_s: float, port: int, log: Path) -> None:
        self._state = state
        self._seed = seed
        self._rate = rate_per_s
        self._port = port
        self._log = log
        self._parent = os.getppid()
        self._specs = flag_specs(seed)
        self._credentials = Credentials()
        self._children: list[Child] = []
        self._listeners: dict[Any, socket.socket] = {}
        self._postgres: Postgres | None = None
        self._valkeys: Valkeys | None = None
        self._events: int | None = None
        self._control: Child | None = None

    def run(self, announce: Callable[[dict[str, Any]], None]) -> None:
        """Runs the estate until it is told to stop; `announce` gets the ready line's object.

        Raises:
            AlreadyRunning: another estate runs on the state directory.
            ServerFailed: a server did not start, or died.
        """
        # Before the first spawn: a signal in between would orphan what was spawned.
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, _stop)
        try:
            self._state.prepare()
            info = self._start()
            write_atomically(self._state.ready, json.dumps(info))
            announce(info)
            self._watch()
        except Stop:
            pass
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            self._shut_down()

    def _start(self) -> dict[str, Any]:
        state, credentials = self._state, self._credentials
        self._bind()
        self._postgres = Postgres(state.runtime, state.data, state.logs, credentials)
        self._postgres.begin()
        self._valkeys = Valkeys(state.runtime, state.logs, credentials)
        self._valkeys.start()
        _warm()
        self._fill_databases()
        for _, process in self._servers():
            state.note(process.pid)
        write_atomically(state.telemetry / "catalogue.json", json.dumps(catalogue(), indent=1))
        # Objects alive now are shared with every child; frozen, the collector does not touch their pages.
        gc.collect()
        gc.freeze()
        ready = self._start_control()
        self._start_recorder()
        self._start_services()
        self._await_ready(ready)
        self._start_load()
        return self._info()

    def _bind(self) -> None:
        self._listeners["admin"] = listen(self._port)
        for name in ("connect", "registry", "flags"):
            self._listeners[name] = listen()
        for region in REGIONS:
            for service in SERVICES:
                self._listeners[region, service] = listen()

    def _fill_databases(self) -> None:
        from estate.postgres import fill, set_passwords

        assert self._postgres is not None
        credentials = self._credentials
        template = self._postgres.fill_template()
        self._in_child("seed", lambda: asyncio.run(fill(template.port, credentials.postgres, self._seed)))
        self._postgres.copy(template)
        ports = {region: self._postgres.clusters[region].port for region in REGIONS}
        self._in_child("passwords", lambda: asyncio.run(set_passwords(ports, credentials)))

    def _in_child(self, name: str, body: Callable[[], None]) -> None:
        """Runs something that needs an event loop, which this process must never have."""
        pid = fork(f"estate-{name}", body, self._log)
        _, status = os.waitpid(pid, 0)
        if status:
            raise ServerFailed(f"preparing the databases ({name}) failed: see {self._log}")

    def _start_control(self) -> int:
        from estate import control

        assert self._postgres is not None
        assert self._valkeys is not None
        events_out, self._events = os.pipe()
        ready_out, ready_in = os.pipe()
        config = control.Config(
            credentials=self._credentials,
            specs=self._specs,
            seed=self._seed,
            admin=self._listeners["admin"],
            connect=self._listeners["connect"],
            registry=self._listeners["registry"],
            flags=self._listeners["flags"],
            flag_audit=self._state.flag_audit,
            connect_requests=self._state.connect_requests,
            postgres_ports={region: self._postgres.clusters[region].port for region in REGIONS},
            valkey_ports={region: self._valkeys.caches[region].port for region in REGIONS},
            addresses={
                (region, service): f"127.0.0.1:{port_of(self._listeners[region, service])}"
                for region in REGIONS
                for service in SERVICES
            },
            events=events_out,
            ready=ready_in,
        )
        keep = ("admin", "connect", "registry", "flags")
        self._control = Child("control", lambda: self._only(keep, lambda: asyncio.run(control.run(config))))
        self._launch(self._control)
        os.close(events_out)
        os.close(ready_in)
        return ready_out

    def _start_recorder(self) -> None:
        def body() -> None:
            from estate import recorder

            asyncio.run(recorder.record(self._state.telemetry, self._state.runtime / "recorder.sock"))

        self._launch(Child("recorder", lambda: self._only((), body)))

    def _start_services(self) -> None:
        from estate import service as instance

        assert self._postgres is not None
        assert self._valkeys is not None
        for region in REGIONS:
            for name, service in SERVICES.items():
                config = instance.Config(
                    region=region,
                    service=name,
                    listener=self._listeners[region, name],
                    recorder=self._state.runtime / "recorder.sock",
                    flag_service=url_of(self._listeners["flags"]),
                    flag_keys=flags_of(name, self._specs),
                    database_port=self._postgres.clusters[region].port,
                    database_password=self._credentials.apps[region, name],
                    cache_port=self._valkeys.caches[region].port,
                    cache_password=self._credentials.cache_app[region],
                    addresses={callee: url_of(self._listeners[region, callee]) for callee in service.callees},
                )
                self._launch(Child(name, self._instance_body(config), region, name))

    def _instance_body(self, config: Any) -> Callable[[], None]:
        from estate import service as instance

        return lambda: self._only(((config.region, config.service),), lambda: instance.run(config))

    def _start_load(self) -> None:
        from estate import load

        gateways = {region: url_of(self._listeners[region, GATEWAY]) for region in REGIONS}

        def generate() -> None:
            asyncio.run(load.generate(gateways, self._rate, self._seed))

        self._launch(Child("load", lambda: self._only((), generate)))

    def _only(self, keep: tuple[Any, ...], body: Callable[[], None]) -> None:
        """In a child: closes what it inherited but must not hold, then runs it."""
        for name, listener in self._listeners.items():
            if name not in keep:
                listener.close()
        if self._events is not None:
            os.close(self._events)
        body()

    def _launch(self, child: Child) -> None:
        child.pid = fork(child.service or child.name, child.body, self._log)
        child.started_at = time.time()
        child.restarts += 1
        if child not in self._children:
            self._children.append(child)
        self._report(child, running=True)

    def _report(self, child: Child, running: bool) -> None:
        if not child.service or self._events is None:
            return
        event = {
            "region": child.region,
            "service": child.service,
            "pid": child.pid,
            "started_at": child.started_at,
            "restarts": child.restarts,
            "running": running,
        }
        with contextlib.suppress(BrokenPipeError):
            os.write(self._events, json.dumps(event).encode() + b"\n")

    def _await_ready(self, ready: int) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not select.select([ready], [], [], 0.02)[0]:
            self._tend()
            if time.monotonic() > deadline:
                raise ServerFailed(f"the services did not become healthy: see {self._log}")
        os.close(ready)
        self._tend()

    def _watch(self) -> None:
        while True:
            self._tend()
            time.sleep(_PARENT_CHECK_S)

    def _tend(self) -> None:
        """Restarts dead children; stops when the parent, the control process or a server is gone."""
        if os.getppid() != self._parent:
            raise Stop
        now = time.monotonic()
        for child in self._children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                if child is self._control:
                    raise ServerFailed(f"the control process died: see {self._log}")
                self._report(child, running=False)
                child.pid = 0
                child.restart_at = now + _BACKOFF_S
            elif not child.pid and now >= child.restart_at:
                self._launch(child)
        assert self._postgres is not None
        assert self._valkeys is not None
        for name, process in self._servers():
            if process.poll() is not None:
                raise ServerFailed(f"{name} died: see {self._state.logs}")

    def _servers(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        assert self._postgres is not None
        assert self._valkeys is not None
        clusters = [(f"PostgreSQL {c.name}", c.process) for c in self._postgres.clusters.values()]
        return clusters + [(f"Valkey {c.region}", c.process) for c in self._valkeys.caches.values()]

    def _info(self) -> dict[str, Any]:
        state, credentials = self._state, self._credentials
        return {
            "admin": url_of(self._listeners["admin"]),
            "admin_token_file": str(state.write_token("admin", credentials.admin_token)),
            "connect": url_of(self._listeners["connect"]),
            "connect_read_token_file": str(state.write_token("connect-read", credentials.connect_read_token)),
            "connect_write_token_file": str(state.write_token("connect-write", credentials.connect_write_token)),
            "telemetry": str(state.telemetry),
            "instances": url_of(self._listeners["registry"]),
            "flags": url_of(self._listeners["flags"]),
            "pid": os.getpid(),
        }

    def _shut_down(self) -> None:
        pids = [child.pid for child in self._children if child.pid]
        for pid in pids:
            kill_tree(pid)
        wait_gone(pids, 5)
        if self._valkeys is not None:
            self._valkeys.stop()
        if self._postgres is not None:
            self._postgres.stop()
        self._state.remove_runtime()


def _warm() -> None:
    """Imports everything the children need, once."""
    import aiohttp.web
    import asyncpg
    import redis.asyncio

    import estate.control
    import estate.load
    import estate.service

    del aiohttp, asyncpg, redis, estate


def _stop(signum: int, frame: FrameType | None) -> None:
    # Once: a second signal must not interrupt the cleaning up that the first one began.
    for other in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Stop
