"""Reads what the product and the estate write down, as it is written, from a thread of its own.

Polling a file costs microseconds, and a kill has to land within the milliseconds between two rows.
"""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from oncall.model.names import record_folder
from tests.campaign.events import Event, Sink, Source

POLL_S = 0.002
_TERMINATED = re.compile(r"^(\S+ \S+) UTC \[(\d+)\] FATAL: +terminating connection due to administrator command")


class Tail(Protocol):
    """Something that grows."""

    def new(self) -> Iterator[Event]:
        """What was added since this was last called."""
        ...


class LedgerTail:
    """The rows of a ledger from now on. Opened in the thread that reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seq = 0

    def new(self) -> Iterator[Event]:
        """The new rows; body is the row's, with `request_digest`."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, timeout=5, isolation_level=None)
            self._seq = self._connection.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0]
        query = "SELECT seq, kind, request_digest, body FROM entries WHERE seq > ? ORDER BY seq"
        for seq, kind, digest, body in self._connection.execute(query, (self._seq,)).fetchall():
            self._seq = seq
            yield Event(Source.LEDGER, kind, {**json.loads(body), "request_digest": digest})


class LinesTail:
    """The whole lines of a file from now on, each read by `parse` (None for one that says nothing)."""

    def __init__(self, path: Path, parse: Callable[[str], Event | None]) -> None:
        self._path = path
        self._parse = parse
        self._position = path.stat().st_size if path.exists() else 0

    def new(self) -> Iterator[Event]:
        """An event per new line that says something."""
        try:
            if self._path.stat().st_size <= self._position:
                return
        except FileNotFoundError:
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if event := self._parse(line):
                yield event


class ReportTail:
    """The report's file of one incident run, once it is there."""

    def __init__(self, state: Path, incident_id: str, run_id: str) -> None:
        self._path: Path | None = state / record_folder(incident_id, run_id) / "report.json"

    def new(self) -> Iterator[Event]:
        """One event, once."""
        if self._path is not None and self._path.exists():
            yield Event(Source.REPORT, "written", {"path": str(self._path)})
            self._path = None


def flag_write(line: str) -> Event | None:
    """A line of the flag service's audit log."""
    return Event(Source.FLAGS, "write", json.loads(line))


def vault_request(line: str) -> Event | None:
    """A line of Connect's log of requests."""
    body: dict[str, Any] = json.loads(line)
    return Event(Source.VAULT, str(body["token"]), body)


def terminated(region: str) -> Callable[[str], Event | None]:
    """A parser of that region's PostgreSQL log: backends that were told to end."""

    def parse(line: str) -> Event | None:
        found = _TERMINATED.match(line)
        if found is None:
            return None
        return Event(Source.POSTGRES, "terminated", {"region": region, "pid": int(found[2]), "at": found[1]})

    return parse


class Tails:
    """Reads several tails in a thread and gives every event to `sink`, in that thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._tails: list[Tail] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def add(self, *tails: Tail) -> None:
        """Read these as well, from their next new entry on."""
        self._tails = [*self._tails, *tails]

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="tails", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read what is there and end. Raises what ended the reading before its time: a blind harness proves nothing."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._read()
                time.sleep(POLL_S)
            self._read()
        except Exception as failure:  # noqa: BLE001 - whatever it is, `stop` raises it where it is seen
            self._failure = failure

    def _read(self) -> None:
        for tail in self._tails:
            for event in tail.new():
                self._sink(event)
