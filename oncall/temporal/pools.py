"""The pools' root keys on this host, and the worker identities they certify.

A pool's private key stays with its workers; verifiers pin its public key. Here both are files below the state folder:
`pools/<pool>.key` (0600) and `pools/<pool>.pub`.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from oncall.model.errors import ErrorCode, Terminal
from oncall.model.names import pool_uri, worker_uri
from oncall.trust.identity import Identity

WORKER_LIFETIME = timedelta(days=1)
"""Renewed at half of it, so that whatever a worker signs stays verifiable for as long as a grant can last."""


class Pool:
    """This process as a worker of a pool. The pool's key is made on first use.

    Raises Terminal(BAD_CONFIG) when the key cannot be written or read.
    """

    def __init__(self, state: Path, tenant: str, name: str) -> None:
        folder = state / "pools"
        path = folder / f"{name}.key"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._root = _load(path) or _create(path, Identity.pool(pool_uri(tenant, name)))
            path.with_suffix(".pub").write_text(self._root.public_key + "\n")
        except OSError as error:
            raise Terminal(ErrorCode.BAD_CONFIG, f"pool key {path}: {error.strerror}") from None
        self._subject = worker_uri(tenant, f"{name}-{os.getpid()}")
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self._worker: Identity | None = None

    def worker(self) -> Identity:
        """The worker's identity, renewed long before it ends."""
        now = datetime.now(UTC)
        if self._worker is None or now >= self._renew_at:
            self._worker = self._root.issue(self._subject, now - timedelta(minutes=5), now + WORKER_LIFETIME)
            self._renew_at = now + WORKER_LIFETIME / 2
        return self._worker


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
