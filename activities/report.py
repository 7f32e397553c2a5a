"""Writes the report where people find it."""

import asyncio
import errno
import os
from pathlib import Path

from activities.implements import implements
from oncall.model.errors import ErrorCode, Retryable
from oncall.model.steps import REPORT, ReportIn, Written


class Report:
    """Writes below the worker's state folder: `incidents/<incident>/<run>/report.json`."""

    def __init__(self, state: Path) -> None:
        self._state = state

    @implements(REPORT)
    async def write_report(self, task: ReportIn) -> Written:
        """The path written. Writing the same report again replaces it."""
        report = task.report
        folder = self._state / "incidents" / _safe(report.incident_id) / _safe(report.run_id)
        path = folder / "report.json"
        await asyncio.to_thread(_write, path, report.model_dump_json(indent=1).encode())
        return Written(path=str(path))


def _safe(name: str) -> str:
    """`name` as one path component: it came from workflow input."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:120] or "_"


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        code = ErrorCode.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.INTERNAL
        raise Retryable(code, f"{path}: {error.strerror}") from None
