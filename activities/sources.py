"""What an incident reads: the live estate's telemetry, or a recording below the folder that this worker allows."""

import json
from datetime import UTC, datetime
from pathlib import Path

from oncall.config import SourcesConfig
from oncall.model.errors import ErrorCode, Terminal
from oncall.telemetry.parquet import ParquetTelemetry
from oncall.telemetry.protocol import Telemetry


class Sources:
    """Opens each source once, so that readers of one window share it."""

    def __init__(self, config: SourcesConfig) -> None:
        self._config = config
        self._open: dict[Path, Telemetry] = {}

    def telemetry(self, recording: str | None) -> Telemetry:
        """The telemetry of the estate, or of the recording of that name. Raises Terminal(TELEMETRY_UNAVAILABLE)."""
        path = self._config.telemetry if recording is None else self._recording(recording)
        if path not in self._open:
            self._open[path] = ParquetTelemetry(path)
        return self._open[path]

    def as_of(self, recording: str | None) -> datetime:
        """The end of what may be read: now, or the moment at which a recording's alert fired (UTC)."""
        if recording is None:
            return datetime.now(UTC)
        path = self._recording(recording) / "alert.json"
        try:
            alert = json.loads(path.read_text(encoding="utf-8"))["alerts"][0]
            moment = datetime.fromisoformat(alert["startsAt"])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, f"{path}: no alert with a startsAt") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _recording(self, name: str) -> Path:
        root = self._config.recordings
        if root is None:
            raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, "this worker reads no recordings (sources.recordings)")
        # The name comes from workflow input: it may name a folder below the root and nothing else.
        if name in ("", ".", "..") or Path(name).name != name or not (root / name).is_dir():
            raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, f"no recording {name!r} in {root}")
        return root / name
