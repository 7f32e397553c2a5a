"""The state directory: what the estate leaves for its clients, and what it needs to clean up after a crash.

    DIR/estate.json          the ready line
    DIR/tokens/              admin, connect-read, connect-write; mode 0600
    DIR/telemetry/           catalogue.json and Parquet segments
    DIR/logs/                of the estate's servers
    DIR/run.json             pids and the runtime directory of the estate that runs here (or died here)

What servers running as another user must reach lies in a runtime directory under the system's temporary one,
because DIR may be below a directory that only its owner can enter. Database files, ten thousand small ones that
nobody keeps, lie in memory where there is room: deleting them from a disk takes seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from estate import postgres
from estate.processes import kill_tree, start_ticks, wait_gone

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_DATA_BYTES = 1_500_000_000  # three times what the clusters come to
_PREFIX = "estate-"


class AlreadyRunning(RuntimeError):
    """Another estate runs on this directory."""


class StateDir:
    """Paths, and the record of who runs here."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.telemetry = self.root / "telemetry"
        self.tokens = self.root / "tokens"
        self.logs = self.root / "logs"
        self.ready = self.root / "estate.json"
        self.flag_audit = self.root / "flags-audit.jsonl"
        self.connect_requests = self.root / "connect-requests.jsonl"
        self.runtime = Path("/nonexistent")
        self.data = Path("/nonexistent")
        self._record = self.root / "run.json"
        self._processes: dict[int, int] = {}

    def prepare(self) -> None:
        """Cleans up after an earlier estate and makes the directories.

        Raises:
            AlreadyRunning: an estate runs here.
        """
        for directory in (self.root, self.telemetry, self.tokens, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        self.tokens.chmod(0o700)
        self._clean_up()
        self.ready.unlink(missing_ok=True)
        # By name: DIR may be a directory in which somebody keeps other things, too.
        for kind in ("metrics", "logs", "spans"):
            shutil.rmtree(self.telemetry / kind, ignore_errors=True)
        for leftover in (self.flag_audit, self.connect_requests, *self.logs.glob("*.log")):
            leftover.unlink(missing_ok=True)
        self.runtime = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.data = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_data_parent()))
        for directory in (self.runtime, self.data):
            directory.chmod(0o711)
        self.note(os.getpid())

    def note(self, pid: int) -> None:
        """Records a process to be ended by the next start, should this estate die without doing so."""
        self._processes = {p: t for p, t in self._processes.items() if start_ticks(p) == t}
        ticks = start_ticks(pid)
        if ticks is not None:
            self._processes[pid] = ticks
        record = {"main": os.getpid(), "directories": [str(self.runtime), str(self.data)], "processes": self._processes}
        write_atomically(self._record, json.dumps(record))

    def remove_runtime(self) -> None:
        """Removes everything outside DIR, and the record in it."""
        for directory in (self.runtime, self.data):
            shutil.rmtree(directory, ignore_errors=True)
        self.ready.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def write_token(self, name: str, token: str) -> Path:
        """Writes a token file with mode 0600; returns its path."""
        path = self.tokens / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(token)
        return path

    def _clean_up(self) -> None:
        try:
            record: dict[str, Any] = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return
        alive = {int(p): t for p, t in record["processes"].items() if start_ticks(int(p)) == t}
        if record["main"] in alive:
            raise AlreadyRunning(f"an estate (pid {record['main']}) runs on {self.root}: stop it first")
        for pid in alive:
            kill_tree(pid)
        wait_gone(list(alive), 5)
        for directory in map(Path, record["directories"]):
            # Only ever a directory of ours: the record may have been tampered with.
            if directory.name.startswith(_PREFIX) and directory.parent in (Path(tempfile.gettempdir()), _MEMORY):
                for data in (directory / "clusters").glob("*"):
                    postgres.clean_up(data)
                shutil.rmtree(directory, ignore_errors=True)


def _data_parent() -> Path:
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        return Path(tempfile.gettempdir())
    roomy = room.f_bavail * room.f_frsize >= _DATA_BYTES and os.access(_MEMORY, os.W_OK)
    return _MEMORY if roomy else Path(tempfile.gettempdir())


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)
