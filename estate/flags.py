"""The flag store: versions, compare-and-set writes, idempotency keys, and which client holds what.

State is per (key, region). A client counts as holding a version only once it has presented the ETag of an answer
that carried it: an answer that is still on its way is not yet obeyed.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from estate.flagset import FlagSpec
from estate.topology import REGIONS

_CLIENT_EXPIRES_S = 30.0
_PEOPLE = ("release-bot", "deploy-bot", "m.okafor", "j.lindqvist", "s.ramanathan", "ci-pipeline")


def iso(seconds: float) -> str:
    """A UTC time as ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Flag:
    """One flag in one region, at one version."""

    key: str
    region: str
    enabled: bool
    version: int
    updated_at: str
    updated_by: str

    def json(self) -> dict[str, Any]:
        """The management API's object."""
        return dict(self.__dict__)

    def evaluation(self) -> dict[str, Any]:
        """The OFREP evaluation of it."""
        return {
            "key": self.key,
            "value": self.enabled,
            "variant": "on" if self.enabled else "off",
            "reason": "STATIC",
            "metadata": {
                "version": self.version,
                "updated_at": self.updated_at,
                "updated_by": self.updated_by,
            },
        }


@dataclass(frozen=True)
class Client:
    """What the store knows of one connected instance: the versions it holds, and when it last polled."""

    instance: str
    region: str
    service: str
    versions: dict[str, int]
    seen_at: float


class UnknownFlag(Exception):
    """No flag with this key in this region."""


class VersionConflict(Exception):
    """The flag is at another version than the writer expected; `current` is its state."""

    def __init__(self, current: Flag) -> None:
        super().__init__(f"{current.key} in {current.region} is at version {current.version}")
        self.current = current


class KeyReused(Exception):
    """An idempotency key came back with another request than the one it was first used for."""


class FlagStore:
    """All flags of all regions, in memory, with an audit line for each write."""

    def __init__(self, specs: dict[str, FlagSpec], seed: int, audit: Path) -> None:
        self._specs = specs
        self._audit = audit
        self._flags: dict[tuple[str, str], Flag] = {}
        self._results: dict[str, tuple[tuple[object, ...], Flag]] = {}
        self._etags: dict[str, dict[str, int]] = {}
        self._clients: dict[tuple[str, str], Client] = {}
        draw = random.Random(f"history:{seed}")
        now = datetime.now(UTC)
        for region in REGIONS:
            for spec in specs.values():
                age = timedelta(hours=draw.uniform(6, 2400))
                self._flags[spec.key, region] = Flag(
                    key=spec.key,
                    region=region,
                    enabled=spec.initially_on,
                    version=draw.randint(1, 9),
                    updated_at=iso((now - age).timestamp()),
                    updated_by=draw.choice(_PEOPLE),
                )

    def get(self, key: str, region: str) -> Flag:
        """One flag. Raises UnknownFlag."""
        try:
            return self._flags[key, region]
        except KeyError:
            raise UnknownFlag(f"no flag {key!r} in region {region!r}") from None

    def select(self, region: str | None = None, service: str | None = None) -> list[Flag]:
        """Flags of one region or all, of one service or all, by region and key."""
        return [
            flag
            for flag in self._flags.values()
            if (region is None or flag.region == region)
            and (service is None or self._specs[flag.key].service == service)
        ]

    def put(
        self, key: str, region: str, enabled: bool, expected: int, idempotency_key: str, by: str
    ) -> tuple[Flag, bool]:
        """Compare-and-set; returns the state written and whether this was a repeat of an earlier write.

        Raises:
            UnknownFlag, VersionConflict, KeyReused
        """
        current = self.get(key, region)
        request = (key, region, enabled, expected, by)
        if idempotency_key in self._results:
            first, result = self._results[idempotency_key]
            if first != request:
                raise KeyReused(f"idempotency key {idempotency_key!r} was used for another write")
            return result, True
        if current.version != expected:
            raise VersionConflict(current)
        flag = replace(
            current,
            enabled=enabled,
            version=current.version + 1,
            updated_at=iso(time.time()),
            updated_by=by,
        )
        self._flags[key, region] = flag
        self._results[idempotency_key] = (request, flag)
        with self._audit.open("a") as audit:
            line = {**flag.json(), "previous": current.enabled, "idempotency_key": idempotency_key}
            audit.write(json.dumps(line) + "\n")
        return flag, False

    def etag(self, flags: Iterable[Flag]) -> str:
        """The ETag of an answer with these flags; remembered, so that a client presenting it holds them."""
        versions = {flag.key: flag.version for flag in flags}
        region = next((flag.region for flag in flags), "")
        digest = hashlib.sha256(json.dumps([region, versions]).encode()).hexdigest()[:24]
        etag = f'"{digest}"'
        self._etags[etag] = versions
        return etag

    def saw(self, instance: str, region: str, service: str, etag: str | None) -> None:
        """Notes a poll by an instance; `etag` is that of the last answer it has taken over."""
        versions = self._etags.get(etag or "", {})
        self._clients[region, instance] = Client(instance, region, service, versions, time.time())

    def clients(self, key: str, region: str) -> list[dict[str, Any]]:
        """The instances that polled lately and hold some version of this flag."""
        oldest = time.time() - _CLIENT_EXPIRES_S
        return [
            {
                "instance": client.instance,
                "region": client.region,
                "service": client.service,
                "version": client.versions[key],
                "seen_at": iso(client.seen_at),
            }
            for client in self._clients.values()
            if client.region == region and key in client.versions and client.seen_at >= oldest
        ]
