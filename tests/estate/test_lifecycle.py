"""Contract: one ready line, private tokens, within its budgets; stopping, or dying, leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.estate.running import ROOT, EstateFailed, RunningEstate, eventually, start_estate


def _left_by(family: list[psutil.Process]) -> list[psutil.Process]:
    return [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]


def _belongings(state: Path) -> tuple[list[Path], set[str]]:
    """What a running estate has outside its state directory: directories, and System V segments by id."""
    directories = [Path(name) for name in json.loads((state / "run.json").read_text())["directories"]]
    pid_files = [file for directory in directories for file in directory.glob("clusters/*/postmaster.pid")]
    assert len(pid_files) == 3
    return directories, {file.read_text().splitlines()[6].split()[1] for file in pid_files}


def _all_gone(belongings: tuple[list[Path], set[str]]) -> bool:
    directories, segments = belongings
    existing = {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    return not any(directory.exists() for directory in directories) and not segments & existing


def test_ready_line_is_also_in_the_state_directory(estate: RunningEstate) -> None:
    assert json.loads((estate.state_dir / "estate.json").read_text()) == estate.info
    assert set(estate.info) == {
        "admin",
        "admin_token_file",
        "connect",
        "connect_read_token_file",
        "connect_write_token_file",
        "telemetry",
        "instances",
        "flags",
        "pid",
    }
    for name in ("admin_token_file", "connect_read_token_file", "connect_write_token_file"):
        assert stat.S_IMODE(os.stat(estate.info[name]).st_mode) == 0o600
    print(f"ready after {estate.ready_s:.1f} s")


def test_thirty_services_answer(estate: RunningEstate) -> None:
    assert estate.admin.get("/health").json() == {"status": "ok", "instances": 30, "down": []}
    regions = estate.admin.get("/state").json()["regions"]
    assert set(regions) == {"us-east-1", "us-west-2", "eu-west-1"}
    pids = {i["pid"] for region in regions.values() for i in region["instances"].values()}
    assert len(pids) == 30


def test_memory_stays_in_budget(estate: RunningEstate) -> None:
    total = 0
    for member in estate.family():
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    print(f"PSS {total / 1e6:.0f} MB")
    assert total < 1.2e9


def test_no_api_accepts_another_ones_token(estate: RunningEstate) -> None:
    admin = estate.token("admin")
    with estate.client(estate.info["connect"], admin) as connect:
        assert connect.get("/v1/vaults").status_code == 401
    with estate.client(estate.info["flags"], admin) as flags:
        assert flags.get("/api/admin/flags").status_code == 401
        assert flags.get("/faults").status_code == 404
    with estate.client(estate.info["instances"], admin) as registry:
        assert registry.get("/api/regions/us-east-1/services/order").status_code == 401
    with estate.client(estate.info["admin"], estate.token("connect-write")) as other:
        assert other.get("/faults").status_code == 401
        assert other.get("/health").status_code == 401


def test_second_estate_on_the_same_directory_is_refused(estate: RunningEstate) -> None:
    with pytest.raises(EstateFailed, match=r"runs on .*: stop it first"):
        start_estate(estate.state_dir)
    assert estate.admin.get("/health").json()["status"] == "ok"


def test_crashed_instance_is_restarted_and_counted(estate: RunningEstate) -> None:
    def instance() -> dict[str, object]:
        found = estate.admin.get("/state").json()["regions"]["eu-west-1"]["instances"]["analytics-1"]
        assert isinstance(found, dict)
        return found

    before = instance()
    os.kill(int(str(before["pid"])), signal.SIGKILL)
    assert eventually(lambda: instance()["restarts"] == 1 and bool(instance()["running"]), 10)
    assert instance()["pid"] != before["pid"]
    with estate.registry() as registry:

        def flags_known() -> bool:
            [answer] = registry.get("/api/regions/eu-west-1/services/analytics").json()["instances"]
            return answer["restarts"] == 1 and "flags" in answer

        assert eventually(flags_known, 10)


def test_stop_and_crash_leave_nothing_behind(tmp_path: Path) -> None:
    state = tmp_path / "private"
    state.mkdir(mode=0o700)
    running = start_estate(state, seed=3, rate=2)
    family, belongings = running.family(), _belongings(state)
    assert len(family) > 40
    running.stop()
    assert eventually(lambda: not _left_by(family), 5), _left_by(family)
    assert running.process.returncode == 0
    assert _all_gone(belongings)
    assert not (state / "estate.json").exists()

    # Killed outright it cannot tidy up; its processes go all the same, and the next start does the tidying.
    running = start_estate(state, seed=3, rate=2)
    family, belongings = running.family(), _belongings(state)
    os.kill(running.info["pid"], signal.SIGKILL)
    running.process.wait(timeout=5)
    assert eventually(lambda: not _left_by(family), 5), _left_by(family)
    running = start_estate(state, seed=3, rate=2)
    try:
        assert _all_gone(belongings)
    finally:
        running.stop()


def test_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-m', 'estate', '--state', {str(tmp_path)!r}])\n"
        f"while not os.path.exists({str(tmp_path / 'estate.json')!r}): time.sleep(0.05)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 40
    pid = 0
    while not pid and time.monotonic() < deadline:
        if (tmp_path / "run.json").exists():
            pid = json.loads((tmp_path / "run.json").read_text())["main"]
        time.sleep(0.02)
    parent.wait(timeout=40)
    assert pid
    assert eventually(lambda: not psutil.pid_exists(pid), 10)
    assert not (tmp_path / "run.json").exists()
