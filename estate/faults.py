"""Faults: drawing a place from a seed, switching the flag on, and healing.

Only this module, and the admin API over it, know where a fault is.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass
from typing import Any

import asyncpg

from estate import queries
from estate.flags import FlagStore, VersionConflict, iso
from estate.flagset import HARMLESS, Effect, FlagSpec, flags_of
from estate.topology import REGIONS, SERVICES, instance_name

_BOT = "release-bot"
_SETTLE_S = 0.5
_SEEN_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Scenario:
    """A kind of fault: the effect switched on and the specialist who should name it. None: nothing is wrong."""

    effect: Effect | None
    specialist: str | None


SCENARIOS: dict[str, Scenario] = {
    "cascading_failure": Scenario(Effect.RUNAWAY_READS, "database"),
    "high_error_rate": Scenario(Effect.BROKEN_ANSWERS, "logs"),
    "false_alarm": Scenario(None, None),
}


class BadFault(ValueError):
    """A fault that cannot be injected; `field` names what is wrong with the request."""

    def __init__(self, field: str, message: str, code: str = "bad_field") -> None:
        super().__init__(message)
        self.field = field
        self.code = code


@dataclass
class Fault:
    """One injected fault and, for those who may see it, the truth about it."""

    fault_id: str
    scenario: str
    seed: int
    region: str | None
    service: str | None
    flag: str | None
    injected_at: str
    healed: bool = False

    def json(self, active: bool, truth: bool) -> dict[str, Any]:
        """The admin API's object; `expected` only with the truth."""
        body: dict[str, Any] = {
            "fault_id": self.fault_id,
            "scenario": self.scenario,
            "seed": self.seed,
            "active": active,
            "injected_at": self.injected_at,
        }
        if truth:
            body["expected"] = {
                "region": self.region,
                "service": self.service,
                "specialist": SCENARIOS[self.scenario].specialist,
                "flag": self.flag,
            }
        return body


class Databases:
    """Superuser connections, one for each region, for what only the estate itself may look at."""

    def __init__(self, ports: dict[str, int], password: str) -> None:
        self._ports = ports
        self._password = password
        self._pools: dict[str, asyncpg.Pool[asyncpg.Record]] = {}

    async def value(self, region: str, sql: str, *arguments: object) -> int:
        """The single integer a query returns."""
        if region not in self._pools:
            self._pools[region] = await asyncpg.create_pool(
                host="127.0.0.1",
                port=self._ports[region],
                user="postgres",
                password=self._password,
                database="postgres",
                ssl=False,
                min_size=0,
                max_size=2,
                command_timeout=5,
                server_settings={"application_name": "estate"},
            )
        return int(await self._pools[region].fetchval(sql, *arguments))


class Faults:
    """All faults injected since the estate started."""

    def __init__(self, store: FlagStore, specs: dict[str, FlagSpec], databases: Databases) -> None:
        self._store = store
        self._specs = specs
        self._databases = databases
        self._faults: dict[str, Fault] = {}
        self._lock = asyncio.Lock()

    def get(self, fault_id: str) -> Fault | None:
        """One fault by id."""
        return self._faults.get(fault_id)

    def all(self) -> list[Fault]:
        """All faults, oldest first."""
        return list(self._faults.values())

    async def is_active(self, fault: Fault) -> bool:
        """Whether it still does harm: its flag is on, or queries it started still run."""
        if fault.healed or fault.flag is None or fault.region is None:
            return False
        if self._store.get(fault.flag, fault.region).enabled:
            return True
        if SCENARIOS[fault.scenario].effect is not Effect.RUNAWAY_READS:
            return False
        return await self._databases.value(fault.region, queries.RUNAWAYS) > 0

    async def inject(self, scenario: str, seed: int, region: str | None, service: str | None) -> Fault:
        """Injects a fault at the place the seed says, or where asked.

        Raises:
            BadFault: an unknown scenario, region or service, or the same fault is there already.
        """
        if scenario not in SCENARIOS:
            known = ", ".join(SCENARIOS)
            raise BadFault("scenario", f"unknown scenario {scenario!r}: known are {known}", "unknown_scenario")
        if region is not None and region not in REGIONS:
            raise BadFault("region", f"unknown region {region!r}: known are {', '.join(REGIONS)}")
        if service is not None and service not in SERVICES:
            raise BadFault("service", f"unknown service {service!r}: known are {', '.join(SERVICES)}")
        draw = random.Random(f"{scenario}:{seed}")
        drawn_region, drawn_service = draw.choice(REGIONS), draw.choice(list(SERVICES))
        effect = SCENARIOS[scenario].effect
        fault_id = f"fault-{secrets.token_hex(4)}"
        if effect is None:
            fault = Fault(fault_id, scenario, seed, None, None, None, iso(time.time()))
            self._faults[fault_id] = fault
            return fault
        place = (region or drawn_region, service or drawn_service)
        async with self._lock:
            flag = flags_of(place[1], self._specs)[effect]
            if self._store.get(flag, place[0]).enabled:
                raise BadFault("scenario", f"{scenario} is already active there", "already_active")
            # Releases come in twos and threes: that some flag changed must not be the answer.
            self._flip_harmless(place[0], place[1], draw)
            await asyncio.sleep(_SETTLE_S)
            self._write(flag, place[0], enabled=True)
            fault = Fault(fault_id, scenario, seed, *place, flag, iso(time.time()))
            self._faults[fault_id] = fault
        return fault

    async def heal(self, fault: Fault) -> None:
        """Undoes it: flag off, waits until the instance obeys, ends the queries it started."""
        async with self._lock:
            if fault.healed or fault.flag is None or fault.region is None or fault.service is None:
                fault.healed = True
                return
            if self._store.get(fault.flag, fault.region).enabled:
                self._write(fault.flag, fault.region, enabled=False)
            version = self._store.get(fault.flag, fault.region).version
            deadline = time.monotonic() + _SEEN_TIMEOUT_S
            while time.monotonic() < deadline and not self._seen(fault, version):
                await asyncio.sleep(0.02)
            if SCENARIOS[fault.scenario].effect is Effect.RUNAWAY_READS:
                role = SERVICES[fault.service].role
                await self._databases.value(fault.region, queries.STOP_RUNAWAYS, role)
            fault.healed = True

    def _seen(self, fault: Fault, version: int) -> bool:
        assert fault.flag is not None
        assert fault.region is not None
        assert fault.service is not None
        clients = self._store.clients(fault.flag, fault.region)
        name = instance_name(fault.service)
        return any(client["instance"] == name and client["version"] >= version for client in clients)

    def _flip_harmless(self, region: str, besides: str, draw: random.Random) -> None:
        harmless = [spec.key for spec in self._specs.values() if spec.effect in HARMLESS and spec.service != besides]
        key = draw.choice(harmless)
        self._write(key, region, enabled=not self._store.get(key, region).enabled)

    def _write(self, key: str, region: str, enabled: bool) -> None:
        while True:
            version = self._store.get(key, region).version
            try:
                self._store.put(key, region, enabled, version, f"release-{secrets.token_hex(8)}", _BOT)
            except VersionConflict:
                continue
            return
