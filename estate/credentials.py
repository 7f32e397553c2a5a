"""The estate's own secrets: random at every start, handed to child processes by fork, never logged."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from estate.topology import REGIONS, SERVICES


def _secret() -> str:
    return secrets.token_urlsafe(24)


def _per_region() -> dict[str, str]:
    return {region: _secret() for region in REGIONS}


@dataclass(frozen=True, repr=False)
class Credentials:
    """Every password and token of one estate. No repr: it must not end up in a traceback."""

    admin_token: str = field(default_factory=_secret)
    connect_read_token: str = field(default_factory=_secret)
    connect_write_token: str = field(default_factory=_secret)
    flag_admin: str = field(default_factory=_secret)
    registry: str = field(default_factory=_secret)
    cloudwatch: str = field(default_factory=_secret)
    postgres: str = field(default_factory=_secret)
    database_read: dict[str, str] = field(default_factory=_per_region)
    database_write: dict[str, str] = field(default_factory=_per_region)
    cache_app: dict[str, str] = field(default_factory=_per_region)
    cache_read: dict[str, str] = field(default_factory=_per_region)
    apps: dict[tuple[str, str], str] = field(
        default_factory=lambda: {(region, name): _secret() for region in REGIONS for name in SERVICES}
    )
