"""Starting the real estate for a test, talking to it, and stopping it. Other rooms' tests use this too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
_READY_TIMEOUT_S = 75.0


class EstateFailed(RuntimeError):
    """The estate did not become ready; the message carries what it wrote."""


@dataclass
class RunningEstate:
    """A running estate: its ready line, an admin client, and what tests ask it most."""

    info: dict[str, Any]
    process: subprocess.Popen[str]
    state_dir: Path
    ready_s: float
    admin: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.admin = self.client(self.info["admin"], self.token("admin"))

    def token(self, name: str) -> str:
        """One of the estate's tokens: admin, connect-read or connect-write."""
        return (self.state_dir / "tokens" / name).read_text()

    def client(self, url: str, token: str | None = None) -> httpx.Client:
        """A client of one of the estate's APIs."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=url, headers=headers, timeout=10)

    def item(self, title: str) -> dict[str, dict[str, str]]:
        """A vault item's values by section and label; fields outside any section are under ""."""
        for token in ("connect-read", "connect-write"):
            with self.client(self.info["connect"], self.token(token)) as connect:
                [vault] = connect.get("/v1/vaults").json()
                items = connect.get(f"/v1/vaults/{vault['id']}/items").json()
                for summary in items:
                    if summary["title"] == title:
                        full = connect.get(f"/v1/vaults/{vault['id']}/items/{summary['id']}").json()
                        values: dict[str, dict[str, str]] = {}
                        for entry in full["fields"]:
                            section = entry.get("section", {}).get("label", "")
                            values.setdefault(section, {})[entry["label"]] = entry["value"]
                        return values
        raise KeyError(title)

    def flags(self) -> httpx.Client:
        """A client of the flag service's management API."""
        return self.client(self.info["flags"], self.item("config-service")[""]["credential"])

    def registry(self) -> httpx.Client:
        """A client of the instance registry."""
        return self.client(self.info["instances"], self.item("k8s-prod-readonly")[""]["credential"])

    def inject(self, scenario: str, seed: int = 1, **place: str) -> dict[str, Any]:
        """Injects a fault; returns it with the truth."""
        body = {"scenario": scenario, "seed": seed, **place}
        answer = self.admin.post("/faults?truth=1", json=body)
        assert answer.status_code == 202, answer.text
        fault: dict[str, Any] = answer.json()
        return fault

    def heal(self, fault: dict[str, Any]) -> None:
        """Heals a fault."""
        assert self.admin.delete(f"/faults/{fault['fault_id']}").status_code == 200

    def runaways(self, region: str) -> int:
        """How many queries of the region's services have run for more than three seconds."""
        return int(self.admin.get("/state").json()["regions"][region]["runaways"])

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs SQL over the telemetry; {metrics}, {logs} and {spans} stand for the segments."""
        kinds = ("metrics", "logs", "spans")
        files = {kind: f"read_parquet('{self.info['telemetry']}/{kind}/*.parquet')" for kind in kinds}
        while True:
            with suppress(duckdb.IOException), duckdb.connect(":memory:") as database:
                return database.execute(sql.format(**files)).fetchall()
            time.sleep(0.2)  # no segment yet, or one was pruned in mid-glob

    def errors(self, since: float, service: str = "api-gateway") -> dict[str, tuple[int, int]]:
        """By region: (failed, all) requests that a service finished since an epoch time, from its log."""
        rows = self.query(
            "SELECT region, count(*) FILTER (message SIMILAR TO '.* 5[0-9][0-9] [0-9.]+ms'), count(*)"
            f" FROM {{logs}} WHERE service = '{service}' AND epoch(ts) > {since}"
            " AND message SIMILAR TO '.* [0-9]{{3}} [0-9.]+ms' GROUP BY region"
        )
        return {region: (failed, total) for region, failed, total in rows}

    def healthy_since(self, timeout_s: float, region: str, after: float) -> float:
        """Waits until the gateway failed nothing for two seconds; returns how long after `after` that began.

        Two segments pass before a request can be seen in telemetry, so this takes at least five seconds.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            [(last_error, last)] = self.query(
                "SELECT coalesce(max(epoch(ts)) FILTER (message SIMILAR TO '.* 5[0-9][0-9] [0-9.]+ms'), 0),"
                f" max(epoch(ts)) FROM {{logs}} WHERE service = 'api-gateway' AND region = '{region}'"
            )
            if last - max(last_error, after) >= 2:
                return max(0.0, float(last_error) - after)
            time.sleep(0.2)
        raise AssertionError(f"{region} did not recover within {timeout_s} s")

    def stop(self) -> None:
        """Stops it with SIGTERM and waits for its end."""
        self.admin.close()
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=5)
            raise

    def family(self) -> list[psutil.Process]:
        """The estate's main process and everything below it."""
        main = psutil.Process(self.info["pid"])
        return [main, *main.children(recursive=True)]


def start_estate(state_dir: Path, **options: object) -> RunningEstate:
    """Starts `python -m estate --state state_dir`, with `--name value` for each further option.

    Raises:
        EstateFailed: it was not ready within 75 s.
    """
    command = [sys.executable, "-m", "estate", "--state", str(state_dir)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    watchdog = threading.Timer(_READY_TIMEOUT_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    if not line:
        process.wait(timeout=15)
        raise EstateFailed(process.stderr.read())
    return RunningEstate(json.loads(line), process, state_dir, time.monotonic() - started)


def eventually(what: Callable[[], bool], timeout_s: float, interval_s: float = 0.1) -> bool:
    """Whether `what` became true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(interval_s)
    return what()
