"""Writes the report where people find it."""

import asyncio
import errno
import os
from pathlib import Path

from activities.implements import implements
from oncall.model.errors import ErrorCode, Retryable
from oncall.model.names import record_folder
from oncall.model.steps import REPORT, ReportIn, Written


class Report:
    """Writes below the worker's state folder: `incidents/<incident>/<run>/report.json`."""

    def __init__(self, state: Path) -> None:
        self._state = state

    @implements(REPORT)
    async def write_report(self, task: ReportIn) -> Written:
        """The path written. Writing the same report again replaces it."""
        report = task.report
        path = self._state / record_folder(report.incident_id, report.run_id) / "report.json"
        await asyncio.to_thread(_write, path, report.model_dump_json(indent=1).encode())
        return Written(path=str(path))


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(".partial")
        # It quotes logs and statements of production: for this user only, like the blobs that it was made from.
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        code = ErrorCode.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else ErrorCode.INTERNAL
        raise Retryable(code, f"{path}: {error.strerror}") from None
