"""Where a vault item says that a database is, and whether TLS is needed to talk to it."""

import ipaddress
from typing import Literal, get_args
from urllib.parse import parse_qs, urlsplit

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

_MODES: dict[str, SslMode] = {mode: mode for mode in get_args(SslMode)}


def database_address(server: str) -> tuple[str, int, SslMode]:
    """(host, port, sslmode) of `host[:port]`, or of `postgresql://host[:port]?sslmode=…`.

    Off loopback, TLS is required unless the item's own sslmode says otherwise: asyncpg would answer a server that asks
    for the password in clear. Raises ValueError for anything else.
    """
    text = server.strip()
    parts = urlsplit(text if "://" in text else f"postgresql://{text}")
    host, port = parts.hostname or "", parts.port or 5432
    modes = parse_qs(parts.query, strict_parsing=bool(parts.query)).get("sslmode", [])
    unknown = [mode for mode in modes if mode not in _MODES]
    if parts.scheme not in ("postgresql", "postgres") or not host or parts.username is not None or unknown:
        raise ValueError
    if modes:
        return host, port, _MODES[modes[-1]]
    return host, port, "disable" if _loopback(host) else "require"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
