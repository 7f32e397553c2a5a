"""Contract: a blob is there whole under the digest of its bytes, or not there; damage is noticed, never returned."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from oncall.blobs.store import BlobStore
from oncall.model.errors import ErrorCode, Retryable, Terminal


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_bytes_come_back_under_their_digest(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "a" / "blobs")
    for data in (b"", b"x" * 100_000):
        name = store.put(data)
        assert name == "sha256:" + hashlib.sha256(data).hexdigest()
        assert store.put(data) == name
        assert BlobStore(tmp_path / "a" / "blobs").get(name) == data
    assert len(files(tmp_path)) == 2
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path)} == {0o600}


@pytest.mark.parametrize(
    "name", ["sha256:" + "0" * 64, "", "sha256:../../etc/passwd", "sha256:" + "0" * 64 + "\n", "x"]
)
def test_what_is_not_there_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Terminal) as caught:
        BlobStore(tmp_path).get(name)
    assert caught.value.code is ErrorCode.BLOB_MISSING


def test_damage_is_noticed_and_can_be_repaired(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    name = store.put(b"finding")
    files(tmp_path)[0].write_bytes(b"findinG")
    with pytest.raises(Terminal) as caught:
        store.get(name)
    assert caught.value.code is ErrorCode.BLOB_CORRUPT
    store.put(b"finding")
    assert store.get(name) == b"finding"


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, ErrorCode.DISK_FULL), (errno.EIO, ErrorCode.INTERNAL)])
def test_a_failing_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: ErrorCode
) -> None:
    store = BlobStore(tmp_path)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Retryable) as caught:
        store.put(b"finding")
    assert caught.value.code is code
    assert files(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Terminal) as caught:
        BlobStore(tmp_path / "file" / "blobs")
    assert caught.value.code is ErrorCode.BAD_CONFIG
