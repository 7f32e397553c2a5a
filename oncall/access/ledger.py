"""The broker's own memory: an append-only, hash-chained record that no workflow can reset.

SQLite in WAL mode with synchronous=FULL: a row that was appended survives a power cut, and several processes on one
host may share the file (never over a network file system). The chain shows any change of a row or a gap between rows to
whoever recomputes it; it cannot show that the last rows were cut off, or that somebody with write access to the file
rebuilt all of it: only a signed head does.
"""

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from oncall.model.errors import ErrorCode, OncallError, Retryable, Terminal
from oncall.model.frozen import Frozen
from oncall.trust.canonical import canonical, digest

BUSY_TIMEOUT_S = 5.0

_DOMAIN_ENTRY = "oncall.ledger-entry/1"
_DOMAIN_GENESIS = "oncall.ledger/1"


class EntryKind(StrEnum):
    """What a row records."""

    GRANT = "grant"
    RELEASE = "release"
    REFUSAL = "refusal"
    CLAIM = "claim"
    EFFECT_BEGIN = "effect_begin"
    EFFECT_END = "effect_end"
    REVOKE = "revoke"
    HALT = "halt"
    RESUME = "resume"


SINGLE_USE = frozenset({EntryKind.GRANT, EntryKind.CLAIM, EntryKind.EFFECT_BEGIN, EntryKind.EFFECT_END})
"""Kinds of which a request digest has at most one row."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS ledger (one INTEGER PRIMARY KEY CHECK (one = 1), ledger_id TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, request_digest TEXT NOT NULL,
        body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL)""",
    f"""CREATE UNIQUE INDEX IF NOT EXISTS single_use ON entries (kind, request_digest)
        WHERE kind IN ({", ".join(f"'{kind}'" for kind in sorted(SINGLE_USE))})""",
    "CREATE INDEX IF NOT EXISTS by_request ON entries (request_digest, kind)",
    "CREATE INDEX IF NOT EXISTS by_kind ON entries (kind)",
    *(
        f"""CREATE TRIGGER IF NOT EXISTS {table}_no_{event.lower()} BEFORE {event} ON {table}
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"""
        for table in ("ledger", "entries")
        for event in ("UPDATE", "DELETE")
    ),
    """CREATE TRIGGER IF NOT EXISTS entries_in_order BEFORE INSERT ON entries
        WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM entries)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
)


class Entry(Frozen):
    """One row. `at` is UTC by the host's clock; `hash` covers every other field and the ledger's id."""

    seq: int
    at: datetime
    kind: EntryKind
    request_digest: str
    body: dict[str, Any]
    prev: str
    hash: str


class Ledger:
    """An open ledger file. Safe to share between threads; open it anew after a fork."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Opens `path`, creating it (owner-only) with a fresh ledger id when it is not there.

        Raises Terminal(BAD_CONFIG) when it cannot be opened or written, Terminal(LEDGER_BROKEN) when it is not a
        ledger, Retryable(DISK_FULL), Retryable(INTERNAL) when others keep it locked.
        """
        self._path = path
        self._clock = clock
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        with self._mapped():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._writer = self._connect()
            try:
                self._create()
                # Readers have their own connection, so that they never wait for another thread's sync to disk.
                self._reader = self._connect()
                self._ledger_id = self._read_id()
            except BaseException:
                self._writer.close()
                raise

    @property
    def ledger_id(self) -> str:
        """This ledger's name, `ledger-<32 hex>`: requests name it, so that none can be used with another."""
        return self._ledger_id

    def append(self, kind: EntryKind, request_digest: str, body: dict[str, Any]) -> Entry:
        """Appends a row durably. Raises Terminal(ALREADY_USED) for a second row of a single-use kind."""
        with self._write() as cursor:
            if kind in SINGLE_USE and self._find(cursor, kind, request_digest) is not None:
                raise Terminal(ErrorCode.ALREADY_USED, f"{request_digest} already has a {kind} in the ledger")
            return self._insert(cursor, kind, request_digest, body)

    def append_once(self, kind: EntryKind, request_digest: str, body: dict[str, Any]) -> tuple[Entry, bool]:
        """The one row of a single-use kind for this digest, and whether this call appended it.

        Of any number of racing processes exactly one gets True. Raises Terminal(INTERNAL) for other kinds.
        """
        if kind not in SINGLE_USE:
            raise Terminal(ErrorCode.INTERNAL, f"rows of kind {kind} are not single use")
        with self._write() as cursor:
            existing = self._find(cursor, kind, request_digest)
            if existing is not None:
                return existing, False
            return self._insert(cursor, kind, request_digest, body), True

    def find(self, kind: EntryKind, request_digest: str) -> Entry | None:
        """The first row of that kind for the digest, its own hash checked. Raises Terminal(LEDGER_BROKEN)."""
        with self._read() as cursor:
            return self._find(cursor, kind, request_digest)

    def entries(
        self, request_digest: str | None = None, kinds: Collection[EntryKind] = tuple(EntryKind)
    ) -> tuple[Entry, ...]:
        """The rows in order, each one's own hash checked. Raises Terminal(LEDGER_BROKEN)."""
        marks = ", ".join("?" for _ in kinds)
        query = f"SELECT * FROM entries WHERE kind IN ({marks})"  # noqa: S608 - only question marks are put in
        arguments = [str(kind) for kind in kinds]
        if request_digest is not None:
            query += " AND request_digest = ?"
            arguments.append(request_digest)
        with self._read() as cursor:
            return tuple(self._entry(row) for row in cursor.execute(query + " ORDER BY seq", arguments))

    def head(self) -> int:
        """The last row's number, 0 when there is none: unchanged means that nothing happened since."""
        with self._read() as cursor:
            return int(cursor.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0])

    def verify(self) -> int:
        """Recomputes the whole chain and returns the number of rows. Raises Terminal(LEDGER_BROKEN) naming the row."""
        prev = self._genesis()
        count = 0
        with self._read() as cursor:
            if self._integrity(cursor) != "ok":
                raise self._broken("the file is damaged")
            for row in cursor.execute("SELECT * FROM entries ORDER BY seq"):
                count += 1
                if row["seq"] != count:
                    raise self._broken(f"row {count} is missing")
                entry = self._entry(row)
                if entry.prev != prev:
                    raise self._broken(f"row {count} does not follow the row before it")
                prev = entry.hash
        return count

    def close(self) -> None:
        """Closes the file."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _create(self) -> None:
        # Two first openers race for the switch to WAL, and SQLite does not wait for that lock.
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                mode = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        if mode != "wal":
            raise Terminal(ErrorCode.BAD_CONFIG, f"ledger {self._path}: the file system does not support WAL")
        if self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] >= len(_SCHEMA):
            return
        with self._write() as cursor:
            for statement in _SCHEMA:
                cursor.execute(statement)
            cursor.execute(
                "INSERT INTO ledger SELECT 1, ? WHERE NOT EXISTS (SELECT 1 FROM ledger)",
                (f"ledger-{secrets.token_hex(16)}",),
            )

    def _read_id(self) -> str:
        row = self._reader.execute("SELECT ledger_id FROM ledger").fetchone()
        if row is None:
            raise self._broken("it has no id")
        return str(row[0])

    def _genesis(self) -> str:
        return digest(_DOMAIN_GENESIS, self._ledger_id)

    def _insert(self, cursor: sqlite3.Cursor, kind: EntryKind, request_digest: str, body: dict[str, Any]) -> Entry:
        last = cursor.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        text = canonical(body).decode()
        row = {
            "seq": last["seq"] + 1 if last else 1,
            "at": self._clock().astimezone(UTC).isoformat(),
            "kind": str(kind),
            "request_digest": request_digest,
            "body": text,
            "prev": last["hash"] if last else self._genesis(),
        }
        row["hash"] = self._hash(row)
        cursor.execute(
            "INSERT INTO entries VALUES (:seq, :at, :kind, :request_digest, :body, :prev, :hash)",
            row,
        )
        return Entry.model_validate({**row, "body": json.loads(text)})

    def _find(self, cursor: sqlite3.Cursor, kind: EntryKind, request_digest: str) -> Entry | None:
        row = cursor.execute(
            "SELECT * FROM entries WHERE request_digest = ? AND kind = ? ORDER BY seq LIMIT 1",
            (request_digest, str(kind)),
        ).fetchone()
        return self._entry(row) if row is not None else None

    def _entry(self, row: sqlite3.Row) -> Entry:
        fields = dict(row)
        stored = fields.pop("hash")
        try:
            # SQLite's columns take any type, and a row of other types has no hash to compare.
            if not all(isinstance(fields[name], str) for name in fields if name != "seq"):
                raise ValueError
            if self._hash(fields) != stored:
                raise self._broken(f"row {fields['seq']} was changed")
            return Entry.model_validate({**fields, "body": json.loads(fields["body"]), "hash": stored})
        except (ValueError, RecursionError):
            raise self._broken(f"row {fields['seq']} cannot be read") from None

    def _hash(self, fields: dict[str, Any]) -> str:
        # Over the body's text, which is canonical, so that rows verify without being parsed.
        return digest(_DOMAIN_ENTRY, {"ledger_id": self._ledger_id, **fields})

    @staticmethod
    def _integrity(cursor: sqlite3.Cursor) -> str:
        return str(cursor.execute("PRAGMA quick_check(1)").fetchone()[0])

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Cursor]:
        with self._mapped(), self._write_lock:
            cursor = self._writer.cursor()
            # IMMEDIATE takes the write lock before reading, so that what was read still holds when it is written.
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Cursor]:
        with self._mapped(), self._read_lock:
            yield self._reader.cursor()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failure(error) from None
        except OSError as error:
            raise Terminal(ErrorCode.BAD_CONFIG, f"ledger {self._path}: {error.strerror}") from None

    def _failure(self, error: sqlite3.Error) -> OncallError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF == sqlite3.SQLITE_FULL:
            return Retryable(ErrorCode.DISK_FULL, f"no space left for the ledger {self._path}", 30)
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Retryable(ErrorCode.INTERNAL, f"the ledger {self._path} is locked by another process", 1)
        if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return Terminal(ErrorCode.BAD_CONFIG, f"the ledger {self._path} cannot be written by this user")
        if code & 0xFF == sqlite3.SQLITE_IOERR:
            return Retryable(ErrorCode.INTERNAL, f"the disk failed under the ledger {self._path}", 5)
        return self._broken(f"not a ledger, or damaged ({getattr(error, 'sqlite_errorname', 'error')})")

    def _broken(self, why: str) -> Terminal:
        return Terminal(ErrorCode.LEDGER_BROKEN, f"the ledger {self._path}: {why}")
