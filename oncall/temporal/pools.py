"""The pools' root keys on this host, and the worker identities they certify.

A pool's private key stays with its workers; verifiers pin its public key. Here both are files below the state folder:
`pools/<pool>.key` (0600) and `pools/<pool>.pub`.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from oncall.model.errors import ErrorCode, Terminal
from oncall.trust.identity import Identity

WORKER_LIFETIME = timedelta(days=1)


def worker_identity(state: Path, tenant: str, pool: str) -> Identity:
    """A fresh identity for this process, certified by the pool's key, which is made on first use.

    Raises Terminal(BAD_CONFIG) when the key cannot be written or read.
    """
    folder = state / "pools"
    path = folder / f"{pool}.key"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        root = _load(path) or _create(path, Identity.pool(f"spiffe://{tenant}/pool/{pool}"))
        public = path.with_suffix(".pub")
        public.write_text(root.public_key + "\n")
    except OSError as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"pool key {path}: {error.strerror}") from None
    now = datetime.now(UTC)
    return root.issue(
        f"spiffe://{tenant}/worker/{pool}-{os.getpid()}", now - timedelta(minutes=5), now + WORKER_LIFETIME
    )


def pinned_keys(state: Path) -> frozenset[str]:
    """The public keys of this host's pools (base64 raw Ed25519)."""
    return frozenset(path.read_text().strip() for path in sorted((state / "pools").glob("*.pub")))


def _load(path: Path) -> Identity | None:
    return Identity.from_bytes(path.read_bytes()) if path.exists() else None


def _create(path: Path, root: Identity) -> Identity:
    """Write the key so that one of several starting workers wins, and all use the winner's."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(root.to_bytes())
    try:
        os.link(partial, path)
    except FileExistsError:
        return Identity.from_bytes(path.read_bytes())
    finally:
        partial.unlink()
    return root
