"""The control process: admin API, flag service, instance registry and Connect, each on its own port.

They share a process, not a secret: each refuses the others' tokens.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from estate.admin import Admin
from estate.connect import Connect, Item, Vault
from estate.credentials import Credentials
from estate.faults import Databases, Faults
from estate.flag_service import FlagService
from estate.flags import FlagStore
from estate.flagset import FlagSpec
from estate.http import serve
from estate.registry import Instance, Registry
from estate.sockets import url_of
from estate.topology import REGIONS, SERVICES, instance_name


@dataclass(frozen=True, repr=False)
class Config:
    """What the control process is started with."""

    credentials: Credentials
    specs: dict[str, FlagSpec]
    seed: int
    admin: socket.socket
    connect: socket.socket
    registry: socket.socket
    flags: socket.socket
    flag_audit: Path
    connect_requests: Path
    postgres_ports: dict[str, int]
    valkey_ports: dict[str, int]
    addresses: dict[tuple[str, str], str]  # (region, service) -> host:port
    events: int  # fd: lines from the supervisor about instances
    ready: int  # fd: closed by us once every instance answers


def vaults(config: Config) -> tuple[Vault, Vault]:
    """The two vaults with every credential that the on-call side may be given."""
    credentials = config.credentials
    flags_url, registry_url = url_of(config.flags), url_of(config.registry)

    def logins(username: str, passwords: dict[str, str], ports: dict[str, int]) -> dict[str, dict[str, str]]:
        return {
            region: {
                "username": username,
                "password": passwords[region],
                "server": f"127.0.0.1:{ports[region]}",
            }
            for region in REGIONS
        }

    read_logins = logins("oncall_read", credentials.database_read, config.postgres_ports)
    write_logins = logins("oncall_write", credentials.database_write, config.postgres_ports)
    cache_logins = logins("oncall_read", credentials.cache_read, config.valkey_ports)
    registry = {"": {"credential": credentials.registry, "server": registry_url}}
    flag_admin = {"": {"credential": credentials.flag_admin, "server": flags_url}}
    read = Vault(
        "Infrastructure",
        "connect-read",
        credentials.connect_read_token,
        (
            Item("prod-db-readonly", "DATABASE", read_logins),
            Item("cache-readonly", "DATABASE", cache_logins),
            Item("aws-cloudwatch", "API_CREDENTIAL", {"": {"credential": credentials.cloudwatch}}),
            Item("k8s-prod-readonly", "API_CREDENTIAL", registry),
        ),
    )
    write = Vault(
        "Infrastructure-Write",
        "connect-write",
        credentials.connect_write_token,
        (
            Item("prod-db-rwaccess", "DATABASE", write_logins),
            Item("config-service", "API_CREDENTIAL", flag_admin),
        ),
    )
    return read, write


async def run(config: Config) -> None:
    """Serves until killed."""
    credentials = config.credentials
    store = FlagStore(config.specs, config.seed, config.flag_audit)
    instances = {
        (region, service): Instance(instance_name(service), region, service, address)
        for (region, service), address in config.addresses.items()
    }
    registry = Registry(instances, credentials.registry)
    databases = Databases(config.postgres_ports, credentials.postgres)
    faults = Faults(store, config.specs, databases)
    ports = {
        region: {"pg_port": config.postgres_ports[region], "valkey_port": config.valkey_ports[region]}
        for region in REGIONS
    }
    admin = Admin(credentials.admin_token, faults, store, registry, databases, ports)
    runners = [
        await serve(FlagService(store, credentials.flag_admin).app(), config.flags),
        await serve(registry.app(), config.registry),
        await serve(Connect(vaults(config), config.connect_requests, time.time()).app(), config.connect),
        await serve(admin.app(), config.admin),
    ]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_follow(registry, config.events))
        tasks.create_task(registry.sample_forever())
        await _await_instances(config)
        os.close(config.ready)
    del runners


async def _follow(registry: Registry, fd: int) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb"))
    while line := await reader.readline():
        registry.update(json.loads(line))


async def _await_instances(config: Config) -> None:
    """Waits until every instance answers its health check."""

    async def healthy(session: aiohttp.ClientSession, address: str) -> None:
        while True:
            try:
                async with session.get(f"http://{address}/healthz") as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.05)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        assert len(config.addresses) == len(REGIONS) * len(SERVICES)
        await asyncio.gather(*(healthy(session, address) for address in config.addresses.values()))
