"""A server, workers as processes on it, and incidents that read recordings which a test has made."""

import json
import secrets
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from temporalio.client import Client

from oncall.cli.opening import make_opening
from oncall.cli.stack import ROLES
from oncall.config import load_config
from oncall.model.alert import Severity
from oncall.model.topology import Topology
from oncall.temporal import incidents
from oncall.temporal.client import connect
from oncall.temporal.embedded import EmbeddedServer
from tests.telemetry.test_parquet import METRICS, write
from tests.temporal.test_worker import configured
from tests.temporal.workers import Workers

RAISED = datetime(2026, 1, 2, 12, 1, tzinfo=UTC)
"""When the alert of every recording was raised: the end of what can be read of it."""

Row = tuple[datetime, str, str, str, float]
"""A reading: when (UTC), region, service, metric, value."""


@dataclass
class Site:
    """A server, and workers on it. Recordings are folders below `recordings`."""

    server: EmbeddedServer
    client: Client
    config: Path
    workers: Workers

    @property
    def recordings(self) -> Path:
        """Where the workers look for recordings."""
        return self.config.parent / "recordings"

    async def opened(
        self, recording: str, severity: Severity = Severity.CRITICAL, place: tuple[str, str] | None = None
    ) -> str:
        """The id of a new incident over a recording, at a region's service or at no place in particular."""
        labels = {"run": secrets.token_hex(4)}
        region, service = place or (None, None)
        config = load_config(self.config)
        opening = make_opening(config, "elevated_errors", severity, "errors", region, service, None, labels)
        recorded = opening.model_copy(update={"recording": recording})
        return (await incidents.open_incident(self.client, recorded)).incident_id


@asynccontextmanager
async def site_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A site whose files are below `folder`; no worker runs on it yet, and none is left."""
    config = configured(folder / "config", sources={"telemetry": "telemetry", "recordings": "recordings"})
    for role in ROLES:
        shutil.copy(config, config.with_name(f"{role}.yaml"))
    server = await EmbeddedServer.start(folder / "server", port=0, ui_port=0)
    monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
    client = await connect()
    workers = Workers(client, config.parent, folder / "logs", {})
    try:
        yield Site(server, client, config, workers)
    finally:
        await workers.stop()
        await server.stop()


def record(folder: Path, topology: Topology, rows: Iterable[Row]) -> None:
    """A recording of these readings, with an alert at RAISED."""
    naive = [(moment.replace(tzinfo=None), *rest) for moment, *rest in rows]
    write(folder / "metrics.parquet", METRICS, naive)
    catalogue = {"format": "recording/1", **topology.model_dump(mode="json")}
    (folder / "catalogue.json").write_text(json.dumps(catalogue))
    (folder / "alert.json").write_text(json.dumps({"alerts": [{"startsAt": RAISED.isoformat()}]}))
