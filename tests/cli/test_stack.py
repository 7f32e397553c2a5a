"""Contract: the embedded stack comes up, is found by other commands, and whatever ends it leaves nothing running."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from temporalio.envconfig import ClientConfig

from oncall.cli import settings
from oncall.cli.settings import RunningStack
from oncall.cli.stack import MARKER, ROLES, claim, write_config
from oncall.config import load_config
from oncall.model.errors import Terminal
from tests.cli.command import STARTER, oncall

READY_S = 100.0
FOREIGN = {
    "TEMPORAL_API_KEY": "for-another-server",
    "TEMPORAL_NAMESPACE": "production",
    "TEMPORAL_TLS": "true",
    "TEMPORAL_TLS_SERVER_NAME": "cloud.example",
}
"""What somebody has in their shell whose usual server is another one."""


def _family(folder: Path) -> list[str]:
    """Command lines of processes that have to do with `folder`: by argument, or by an inherited setting."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            line = " ".join(process.info["cmdline"] or [])
            if str(folder) in line or str(folder) in process.environ().get("ONCALL_STATE", ""):
                found.append(f"{process.info['pid']} {line}")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


async def _none_left(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while left := _family(folder):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)


async def _dev(folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(STARTER), "dev", "--json", "--seed", "7"),
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "ONCALL_STATE": str(folder / "state"), **FOREIGN},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _urls(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), READY_S)
    urls: dict[str, Any] = json.loads(line)
    return urls


@pytest.mark.timeout(240)
async def test_dev_is_found_by_other_commands_and_stops_without_a_trace(tmp_path: Path) -> None:
    env = {"ONCALL_STATE": str(tmp_path / "state"), **FOREIGN}
    process = await _dev(tmp_path)
    try:
        urls = await _urls(process)
        key = Path(urls["approver_key"])
        assert key.stat().st_mode & 0o077 == 0
        assert key.parent.stat().st_mode & 0o077 == 0

        second = await oncall(tmp_path, "dev", env=env)
        assert second.code == 2
        assert "another embedded stack runs here" in second.error

        seen = await oncall(tmp_path, "status", "--json", env=env)
        assert (seen.code, json.loads(seen.stdout)) == (0, {"incidents": [], "silent": []})
        assert "using the embedded stack of `oncall dev`" in seen.stderr

        trigger = ("trigger", "--anomaly", "errors", "--severity", "critical", "--json")
        opened = json.loads((await oncall(tmp_path, *trigger, env=env)).stdout)
        joined = json.loads((await oncall(tmp_path, *trigger, env=env)).stdout)
        assert (opened["joined"], joined["joined"]) == (False, True)
        assert joined["run_id"] == opened["run_id"]

        waiting: list[dict[str, Any]] = []
        deadline = time.monotonic() + 30
        while not waiting and time.monotonic() < deadline:
            waiting = json.loads((await oncall(tmp_path, "approvals", "--json", env=env)).stdout)["approvals"]
        denied = await oncall(tmp_path, "deny", waiting[0]["request_id"], "--reason", "test", "--json", env=env)
        assert (denied.code, json.loads(denied.stdout)["outcome"]) == (0, "denied")
        listed = await oncall(tmp_path, "actions", "--json", env=env)
        assert {a["type"]: a["verdict"] for a in json.loads(listed.stdout)["actions"]} == {
            "kill_queries": "approve",
            "disable_flag": "approve",
        }
    finally:
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, stderr.decode()
    assert not key.exists()
    await _none_left(tmp_path)
    address = {"ONCALL_STATE": env["ONCALL_STATE"], "TEMPORAL_ADDRESS": urls["temporal"]}
    after = await oncall(tmp_path, "status", "--json", env=address)
    assert after.code == 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
async def test_a_start_that_is_ended_halfway_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    process = await _dev(tmp_path)
    while not (tmp_path / "state" / "dev" / "temporal.db").exists():
        await asyncio.sleep(0.1)
    process.send_signal(number)
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in stderr
    await _none_left(tmp_path)
    assert not list((tmp_path / "state" / "dev").glob("approver-*/*")) or number is signal.SIGKILL


def test_a_running_stack_is_reached_whatever_server_the_shell_is_set_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("TEMPORAL_", "ONCALL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ONCALL_STATE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    profile = tmp_path / ".config" / "temporalio" / "temporal.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text('[profile.default]\nnamespace = "production"\napi_key = "k"\n')
    stack = RunningStack(os.getpid(), "127.0.0.1:1", "ui", str(tmp_path / "oncall.yaml"), "key", "admin", "token")
    (tmp_path / "dev").mkdir()
    stack.write(tmp_path / "dev" / "stack.json")
    before = {**os.environ, **FOREIGN}
    with settings.environment(FOREIGN):
        assert ClientConfig.load_client_connect_config()["api_key"] == "for-another-server"
        names = {*os.environ, "ONCALL_CONFIG", "TEMPORAL_ADDRESS", "TEMPORAL_CONFIG_FILE"}
        with settings.environment({name: os.environ.get(name) for name in names}):
            assert settings.adopt(lambda _: None) == stack
            assert ClientConfig.load_client_connect_config() == {"target_host": "127.0.0.1:1", "namespace": "default"}
        assert dict(os.environ) == before


def test_a_folder_with_somebody_s_approvers_is_not_taken(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "approvers").mkdir(parents=True)
    with pytest.raises(Terminal, match="choose another with --state"):
        claim(theirs)
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    (ledger / "ledger.db").touch()
    with pytest.raises(Terminal, match="choose another with --state"):
        claim(ledger)
    claim(tmp_path / "ours")
    (tmp_path / "ours" / "approvers").mkdir()
    claim(tmp_path / "ours")
    assert (tmp_path / "ours" / MARKER).exists()
    assert list(theirs.iterdir()) == [theirs / "approvers"]


def test_each_worker_is_told_of_its_own_token_only(tmp_path: Path) -> None:
    estate = {
        "connect": "http://127.0.0.1:1",
        "connect_read_token_file": "/read",
        "connect_write_token_file": "/write",
        "telemetry": "/telemetry",
        "instances": "http://127.0.0.1:2",
    }
    config = write_config(tmp_path, estate)
    texts = {role: config.with_name(f"{role}.yaml").read_text() for role in (*ROLES, "oncall")}
    assert [role for role, text in texts.items() if "/read" in text] == ["investigate"]
    assert [role for role, text in texts.items() if "/write" in text] == ["remediate"]
    loaded = load_config(config)
    assert loaded.state == tmp_path
    assert yaml.safe_load(loaded.policy.read_text())["read"] == "approve"
