"""Contract: what was appended stays, in order, chained, once per digest for single-use kinds, over threads, processes
and restarts; any tampering that leaves the file readable is found by `verify`; every failure has its code.
"""

import json
import multiprocessing
import os
import sqlite3
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oncall.access.ledger import SINGLE_USE, EntryKind, Ledger
from oncall.model.errors import ErrorCode, Retryable, Terminal

D1 = "sha256:" + "1" * 64
D2 = "sha256:" + "2" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


def filled(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.append(EntryKind.GRANT, D1, {"request": "{}", "é": [1, None]})
    ledger.append(EntryKind.RELEASE, D1, {"reference": "op://v/i/f"})
    ledger.append(EntryKind.RELEASE, D1, {"reference": "op://v/i/g"})
    ledger.append(EntryKind.CLAIM, D2, {})
    return ledger


def test_rows_come_back_in_order_and_chained(path: Path) -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    ledger = Ledger(path, clock=lambda: now)
    first = ledger.append(EntryKind.GRANT, D1, {"b": 1, "a": "é"})
    second = ledger.append(EntryKind.REFUSAL, D2, {})
    assert (first.seq, second.seq, second.prev, first.at) == (1, 2, first.hash, now)
    assert ledger.entries() == (first, second)
    assert ledger.entries(D2) == (second,) == ledger.entries(kinds=(EntryKind.REFUSAL,))
    assert ledger.find(EntryKind.GRANT, D1) == first
    assert ledger.find(EntryKind.GRANT, D2) is None
    assert (ledger.head(), ledger.verify()) == (2, 2)


def test_id_and_rows_survive_a_restart(path: Path) -> None:
    ledger = filled(path)
    before = (ledger.ledger_id, ledger.entries())
    ledger.close()
    again = Ledger(path)
    assert (again.ledger_id, again.entries()) == before
    assert again.append(EntryKind.REVOKE, D1, {}).seq == 5
    assert again.verify() == 5
    assert Ledger(path.with_name("other.db")).ledger_id != again.ledger_id


def test_files_are_the_owners_only(path: Path) -> None:
    ledger = filled(path)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    ledger.close()


@pytest.mark.parametrize("kind", sorted(SINGLE_USE))
def test_single_use_kinds_take_one_row_per_digest(path: Path, kind: EntryKind) -> None:
    ledger = Ledger(path)
    first, mine = ledger.append_once(kind, D1, {"n": 1})
    assert mine
    assert ledger.append_once(kind, D1, {"n": 2}) == (first, False)
    assert ledger.append_once(kind, D2, {})[1]
    with pytest.raises(Terminal) as caught:
        ledger.append(kind, D1, {})
    assert caught.value.code is ErrorCode.ALREADY_USED
    # Also without our code in between.
    with pytest.raises(sqlite3.IntegrityError), sqlite3.connect(path) as raw:
        raw.execute(
            "INSERT INTO entries SELECT 3, at, kind, request_digest, body, prev, 'h' FROM entries WHERE seq = 1"
        )
    with pytest.raises(Terminal):
        ledger.append_once(EntryKind.RELEASE, D1, {})
    assert ledger.verify() == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}' WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 4",
        "DELETE FROM entries",
        "UPDATE ledger SET ledger_id = 'x'",
        "DELETE FROM ledger",
        "INSERT INTO entries SELECT 9, at, 'release', request_digest, body, prev, 'h' FROM entries WHERE seq = 1",
        "INSERT OR REPLACE INTO entries SELECT seq, at, kind, 'sha256:0', body, prev, hash FROM entries WHERE seq = 1",
    ],
)
def test_triggers_forbid_rewriting(path: Path, statement: str) -> None:
    ledger = filled(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), sqlite3.connect(path) as raw:
        raw.execute(statement)
    assert ledger.verify() == 4


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE entries SET body = \'{"reference":"op://v/i/x"}\' WHERE seq = 2',
        "UPDATE entries SET body = body || ' ' WHERE seq = 2",
        "UPDATE entries SET body = 'x' WHERE seq = 2",
        "UPDATE entries SET kind = 'refusal' WHERE seq = 2",
        "UPDATE entries SET kind = 'nonsense' WHERE seq = 2",
        f"UPDATE entries SET request_digest = '{D2}' WHERE seq = 2",
        "UPDATE entries SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 2",
        "UPDATE entries SET at = x'ff' WHERE seq = 2",
        "UPDATE entries SET hash = 'sha256:0' WHERE seq = 2",
        "UPDATE entries SET prev = 'sha256:0' WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 1",
        "UPDATE ledger SET ledger_id = 'ledger-other'",
    ],
)
def test_tampering_behind_the_triggers_is_found(path: Path, statement: str) -> None:
    filled(path).close()
    with sqlite3.connect(path) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute(statement)
    raw.close()
    with pytest.raises(Terminal) as caught:
        Ledger(path).verify()
    assert caught.value.code is ErrorCode.LEDGER_BROKEN


def test_a_changed_row_is_not_even_read(path: Path) -> None:
    ledger = filled(path)
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TRIGGER entries_no_update")
        raw.execute("""UPDATE entries SET body = '{"request":"forged"}' WHERE seq = 1""")
    for read in (lambda: ledger.find(EntryKind.GRANT, D1), lambda: ledger.entries(D1)):
        with pytest.raises(Terminal) as caught:
            read()
        assert caught.value.code is ErrorCode.LEDGER_BROKEN


def test_a_swapped_pair_of_rows_is_found(path: Path) -> None:
    filled(path).close()
    with sqlite3.connect(path) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        for old, new in ((2, 9), (3, 2), (9, 3)):
            raw.execute("UPDATE entries SET seq = ? WHERE seq = ?", (new, old))
    with pytest.raises(Terminal):
        Ledger(path).verify()


def _race(path: str, rounds: int, start: "threading.Barrier", results: "multiprocessing.Queue[list[int]]") -> None:
    ledger = Ledger(Path(path))
    start.wait()
    won = [n for n in range(rounds) if ledger.append_once(EntryKind.CLAIM, f"sha256:{n}", {"pid": os.getpid()})[1]]
    results.put(won)
    ledger.close()


def test_of_racing_processes_exactly_one_wins_each_row(path: Path) -> None:
    # Opening races too: none of the processes finds a ledger.
    context = multiprocessing.get_context("spawn")
    rounds, contenders = 40, 3
    start, results = context.Barrier(contenders), context.Queue()
    racers = [context.Process(target=_race, args=(str(path), rounds, start, results)) for _ in range(contenders)]
    for racer in racers:
        racer.start()
    won = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join(timeout=30)
    assert sorted(n for some in won for n in some) == list(range(rounds))
    assert Ledger(path).verify() == rounds


def test_of_racing_threads_exactly_one_wins_each_row(path: Path) -> None:
    ledger = Ledger(path)
    won: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: won.extend(n for n in range(20) if ledger.append_once(EntryKind.CLAIM, f"sha256:{n}", {})[1])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))
    assert ledger.verify() == 20


def _die(path: str) -> None:
    ledger = Ledger(Path(path))
    ledger.append(EntryKind.EFFECT_BEGIN, D1, {})
    with ledger._write() as cursor:
        ledger._insert(cursor, EntryKind.EFFECT_END, D1, {})
        os._exit(9)


def test_a_process_killed_in_mid_append_leaves_whole_rows(path: Path) -> None:
    victim = multiprocessing.get_context("spawn").Process(target=_die, args=(str(path),))
    victim.start()
    victim.join(timeout=60)
    assert victim.exitcode == 9
    ledger = Ledger(path)
    assert [entry.kind for entry in ledger.entries()] == [EntryKind.EFFECT_BEGIN]
    assert ledger.append_once(EntryKind.EFFECT_END, D1, {})[1]


def test_a_file_that_is_no_ledger_is_named_broken(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Terminal) as caught:
        Ledger(path)
    assert caught.value.code is ErrorCode.LEDGER_BROKEN
    assert str(path) in caught.value.message


def test_damaged_pages_are_found(path: Path) -> None:
    ledger = Ledger(path)
    for n in range(100):
        ledger.append(EntryKind.REFUSAL, D1, {"n": n, "x": "y" * 500})
    ledger.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8000] = b"\xa5" * 8000
    path.write_bytes(data)
    with pytest.raises(Terminal) as caught:
        Ledger(path).verify()
    assert caught.value.code is ErrorCode.LEDGER_BROKEN


def test_a_place_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "ledger.db", Path("/proc/oncall/ledger.db"), tmp_path):
        with pytest.raises(Terminal) as caught:
            Ledger(place)
        assert caught.value.code is ErrorCode.BAD_CONFIG
        assert str(place) in caught.value.message


def _open_unprivileged(place: str, results: "multiprocessing.Queue[str]") -> None:
    if os.geteuid() == 0:
        # Root may write everywhere, so this process becomes nobody.
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        Ledger(Path(place))
        results.put("opened")
    except Terminal as error:
        results.put(str(error.code))


@pytest.mark.parametrize("exists", [False, True])
def test_a_place_that_may_only_be_read_is_a_configuration_error(exists: bool) -> None:
    # Not below pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ledger.db"
        if exists:
            filled(place).close()
            place.chmod(0o444)
        Path(folder).chmod(0o555)
        context = multiprocessing.get_context("fork")
        results: multiprocessing.Queue[str] = context.Queue()
        child = context.Process(target=_open_unprivileged, args=(str(place), results))
        child.start()
        try:
            assert results.get(timeout=30) == str(ErrorCode.BAD_CONFIG)
        finally:
            child.join(timeout=30)
            Path(folder).chmod(0o700)


def test_a_full_disk_is_worth_another_try_and_loses_nothing(path: Path) -> None:
    ledger = filled(path)
    pages = ledger._writer.execute("PRAGMA page_count").fetchone()[0]
    ledger._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Retryable) as caught:
        ledger.append(EntryKind.REFUSAL, D1, {"x": "y" * 100_000})
    assert caught.value.code is ErrorCode.DISK_FULL
    ledger._writer.execute("PRAGMA max_page_count = 100000")
    assert ledger.append(EntryKind.REFUSAL, D1, {"x": "y" * 100_000}).seq == 5
    assert ledger.verify() == 5


def test_a_lock_that_is_never_released_is_worth_another_try(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncall.access.ledger.BUSY_TIMEOUT_S", 0.1)
    ledger = filled(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Retryable):
        ledger.append(EntryKind.REFUSAL, D1, {})
    assert ledger.find(EntryKind.GRANT, D1) is not None, "readers do not wait for writers"
    other.execute("ROLLBACK")
    assert ledger.append(EntryKind.REFUSAL, D1, {}).seq == 5
    other.close()


def test_a_body_that_has_no_canonical_json_appends_nothing(path: Path) -> None:
    ledger = filled(path)
    with pytest.raises(Terminal):
        ledger.append(EntryKind.REFUSAL, D1, {"x": float("nan")})
    assert ledger.append(EntryKind.REFUSAL, D1, json.loads('{"x": 1.5}')).seq == 5
