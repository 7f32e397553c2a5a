"""Content-addressed storage: findings, evidence and transcripts, named by what they contain."""

import errno
import hashlib
import os
import re
import tempfile
from pathlib import Path

from oncall.model.errors import ErrorCode, Retryable, Terminal

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class BlobStore:
    """Blobs as files under a directory, `<two hex>/<sixty-two hex>`; readable by their owner only.

    A blob is either there whole or not there: it is written aside, synced and renamed. Several processes may share the
    directory, for equal names mean equal bytes.
    """

    def __init__(self, directory: Path) -> None:
        """Creates the directory when needed. Raises Terminal(BAD_CONFIG) when it cannot."""
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Terminal(ErrorCode.BAD_CONFIG, f"blob storage {directory}: {error.strerror}") from None

    def put(self, data: bytes) -> str:
        """Stores `data` durably and returns `sha256:<hex>`; storing it again is free.

        Raises Retryable(DISK_FULL) and, for any other failure to write, Retryable(INTERNAL).
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            if self._holds(path, digest):
                return f"sha256:{digest}"
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True, mode=0o700)
                _sync(self._directory)
            self._write(path, data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Retryable(ErrorCode.DISK_FULL, f"no space left for blobs in {self._directory}", 30) from None
            raise Retryable(ErrorCode.INTERNAL, f"blob storage {self._directory}: {error.strerror}", 5) from None
        return f"sha256:{digest}"

    def get(self, digest: str) -> bytes:
        """The bytes named `sha256:<hex>`, verified.

        Raises Terminal(BLOB_MISSING), also for a malformed name, and Terminal(BLOB_CORRUPT) when the bytes are not
        what the name says.
        """
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise Terminal(ErrorCode.BLOB_MISSING, "a blob is named sha256:<64 hex digits>")
        try:
            data = self._path(match[1]).read_bytes()
        except FileNotFoundError:
            raise Terminal(ErrorCode.BLOB_MISSING, f"no blob {digest} in {self._directory}") from None
        except OSError as error:
            raise Retryable(ErrorCode.INTERNAL, f"blob {digest}: {error.strerror}", 5) from None
        if hashlib.sha256(data).hexdigest() != match[1]:
            raise Terminal(ErrorCode.BLOB_CORRUPT, f"blob {digest} in {self._directory} is damaged")
        return data

    def _path(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest[2:]

    def _holds(self, path: Path, digest: str) -> bool:
        # A damaged file must not make its own repair a no-op.
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest

    def _write(self, path: Path, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        _sync(path.parent)


def _sync(directory: Path) -> None:
    """Makes a rename or a new folder within `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
