"""A pool's key is made once, kept private, shared by its workers, and pinned by its public half."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oncall.model.access import Approvers
from oncall.model.errors import Terminal
from oncall.temporal.pools import WORKER_LIFETIME, Pool, pinned_keys
from oncall.trust.identity import verify_envelope

STATEMENT = Approvers(allowed_signers="", people={})


def test_workers_of_one_pool_share_its_key(tmp_path: Path) -> None:
    first, second = (Pool(tmp_path, "test", "investigate") for _ in range(2))
    pinned = pinned_keys(tmp_path)
    assert len(pinned) == 1
    for pool in (first, second):
        envelope = pool.worker().sign("x/y", STATEMENT)
        assert verify_envelope(envelope, "x/y", pinned, datetime.now(UTC), None)
    assert stat.S_IMODE((tmp_path / "pools" / "investigate.key").stat().st_mode) == 0o600


def test_another_pool_is_not_believed(tmp_path: Path) -> None:
    stranger = Pool(tmp_path / "elsewhere", "test", "investigate").worker()
    Pool(tmp_path, "test", "investigate")
    with pytest.raises(Terminal, match="pinned"):
        verify_envelope(stranger.sign("x/y", STATEMENT), "x/y", pinned_keys(tmp_path), datetime.now(UTC), None)


def test_an_identity_is_renewed_at_half_its_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path, "test", "investigate")
    first = pool.worker()
    assert pool.worker() is first

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + WORKER_LIFETIME / 2

    monkeypatch.setattr("oncall.temporal.pools.datetime", Later)
    assert pool.worker().public_key != first.public_key


def test_a_key_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pools").write_text("in the way")
    with pytest.raises(Terminal, match="pool key"):
        Pool(tmp_path, "test", "investigate")
