"""What a command leaves on disk about a closed incident, and finds again when no server runs any more.

STATE/incidents/<incident>/<run>/report.json  report.md  report.html  history.json
"""

import errno
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from oncall.cli.files import write_whole
from oncall.cli.markdown import to_markdown
from oncall.cli.postmortem import postmortem
from oncall.cli.settings import state_root
from oncall.cli.webpage import to_html
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.names import path_part, record_folder
from oncall.model.report import IncidentReport


def write_record(state: Path, report: IncidentReport, history: str) -> IncidentReport:
    """Writes the files of an incident whose workflow has completed; returns the report with their names filled in.

    Raises Terminal when they cannot be written: DISK_FULL, or BAD_CONFIG for any other reason.
    """
    folder = state / record_folder(report.incident_id, report.run_id)
    files = {"report": str(folder / "report.json"), "history": str(folder / "history.json")}
    report = report.model_copy(update={"files": report.files.model_copy(update=files)})
    blocks = postmortem(report)
    try:
        write_whole(folder / "history.json", history, private=True)
        write_whole(folder / "report.md", to_markdown(blocks), private=True)
        write_whole(folder / "report.html", to_html(blocks), private=True)
        # Over the worker's own, which was written before the workflow knew of it and so names no files.
        write_whole(folder / "report.json", report.model_dump_json(indent=1), private=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = ErrorCode.DISK_FULL if full else ErrorCode.BAD_CONFIG
        raise Terminal(code, f"{folder}: {error.strerror}; the report was not written") from None
    return report


def find_record(incident_id: str, note: Callable[[str], None], file: str = "report.json") -> Path | None:
    """The newest folder of an incident below the state folder that holds `file`, or None; says through `note` where."""
    pattern = f"*/incidents/{path_part(incident_id)}/*/{file}"
    found = sorted(state_root().glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        return None
    note(f"no Temporal server was named, so this is the record in {found[-1].parent}")
    return found[-1].parent


def load_report(folder: Path) -> IncidentReport:
    """The report in `folder`. Raises Terminal(BAD_CONFIG) when it is damaged."""
    path = folder / "report.json"
    try:
        return IncidentReport.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: not an incident report of this version") from None
