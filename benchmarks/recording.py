"""Makes a recording (format `recording/1`) of what a live estate has recorded so far."""

import hashlib
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import duckdb

KINDS = ("metrics", "logs", "spans")


def make_recording(telemetry: Path, folder: Path, place: tuple[str, str], starts_at: datetime) -> Path:
    """Merges every finished segment below `telemetry` into `folder`.

    The alert names `place` (region, service), where users noticed it at `starts_at` (UTC), as an alert rule would.
    """
    folder.mkdir(parents=True)
    shutil.copy(telemetry / "catalogue.json", folder / "catalogue.json")
    with duckdb.connect(":memory:") as connection:
        for kind in KINDS:
            segments = sorted(str(path) for path in (telemetry / kind).glob("[0-9]*.parquet"))
            target = str(folder / f"{kind}.parquet").replace("'", "''")
            # COPY takes no parameters, so the rows pass through a table.
            connection.execute(f"CREATE TEMP TABLE {kind} AS FROM read_parquet(?)", [segments])
            connection.execute(f"COPY (FROM {kind} ORDER BY ts) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    (folder / "alert.json").write_text(json.dumps(_alert(place, starts_at), indent=1), encoding="utf-8")
    return folder


def link_copy(recording: Path, folder: Path) -> str:
    """The same recording under another name, so that no cache knows it; returns the name. Costs no disk space."""
    folder.mkdir()
    for path in recording.iterdir():
        os.link(path, folder / path.name)
    return folder.name


def starts_at(recording: Path) -> datetime:
    """When the recording's alert fired (UTC)."""
    alert = json.loads((recording / "alert.json").read_text(encoding="utf-8"))["alerts"][0]
    return datetime.fromisoformat(alert["startsAt"])


def _alert(place: tuple[str, str], starts_at: datetime) -> dict[str, object]:
    region, service = place
    labels = {
        "alertname": "HighErrorRate",
        "severity": "critical",
        "region": region,
        "service": service,
        "metric": "errors(1/s)",
    }
    annotations = {"summary": f"{service} in {region}: errors(1/s) is outside its usual range"}
    alert = {
        "status": "firing",
        "labels": labels,
        "annotations": annotations,
        "startsAt": starts_at.astimezone(UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:16],
    }
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{labels["alertname"]}"}}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "on-call",
        "groupLabels": {"alertname": labels["alertname"]},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }
