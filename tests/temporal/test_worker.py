"""A worker that cannot do its work says why in one line and exits: 2 for its configuration, 3 for an absent server."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import yaml

from oncall.cli import sshkeys
from oncall.cli.keys import add_approver
from oncall.cli.stack import WORKER_STOP_S
from oncall.config import load_config
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.names import Queue
from oncall.model.steps import STEPS
from oncall.temporal.embedded import EmbeddedServer, free_port
from oncall.temporal.roles import QUEUE_OF, Role, _approvers
from oncall.temporal.serve import DRAIN, LAST_TASKS_S
from workflows.options import OPTIONS

WORKER = Path(__file__).resolve().parents[2] / "worker.py"


def configured(folder: Path, **changes: object) -> Path:
    """A folder with everything that a worker needs."""
    folder.mkdir(exist_ok=True)
    add_approver(folder / "approvers", "alice", sshkeys.generate(folder / "alice", "alice", False))
    (folder / "token").write_text("t")
    (folder / "policy.yaml").write_text("version: 1\nread: approve\n")
    settings: dict[str, object] = {
        "state": "state",
        "approvers": "approvers",
        "policy": "policy.yaml",
        "connect": {"url": "http://127.0.0.1:9", "read_token_file": "token", "write_token_file": "token"},
        "sources": {"telemetry": "telemetry"},
    }
    path = folder / "oncall.yaml"
    path.write_text(yaml.safe_dump(settings | changes))
    return path


async def run(config: Path, address: str, role: str) -> tuple[int | None, str]:
    """The worker's exit code and what it said on stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(WORKER), "--role", role),
        env={**os.environ, "ONCALL_CONFIG": str(config), "TEMPORAL_ADDRESS": address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, stderr.decode()


async def test_without_temporal_it_is_3(tmp_path: Path) -> None:
    code, said = await run(configured(tmp_path), f"127.0.0.1:{free_port(0)}", "orchestrate")
    assert (code, said.count("error: ")) == (3, 1)
    assert "Traceback" not in said


LACKING: dict[str, tuple[str, dict[str, object]]] = {
    "connect.read_token_file": ("investigate", {"connect": {"url": "http://127.0.0.1:9"}}),
    "connect.write_token_file": ("remediate", {"connect": {"url": "http://127.0.0.1:9", "read_token_file": "token"}}),
    "nowhere.yaml": ("investigate", {"policy": "nowhere.yaml"}),
    "nobody": ("remediate", {"approvers": "nobody"}),
}


async def test_a_role_without_its_settings_is_2(tmp_path: Path) -> None:
    server = await EmbeddedServer.start(tmp_path / "server", port=0, ui_port=0)
    try:
        results = await asyncio.gather(
            *(
                run(configured(tmp_path / f"worker-{number}", **changes), server.address, role)
                for number, (role, changes) in enumerate(LACKING.values())
            )
        )
    finally:
        await server.stop()
    for named, (code, said) in zip(LACKING, results, strict=True):
        assert code == 2, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert named in line
        assert "Traceback" not in said


def test_a_list_of_approvers_that_would_refuse_everybody_is_refused_at_the_start(tmp_path: Path) -> None:
    path = configured(tmp_path)
    config = load_config(path)
    assert _approvers(config).people
    signers = tmp_path / "approvers" / "allowed_signers"
    signers.write_text(signers.read_text().replace("namespaces=", 'valid-before="2027",namespaces='))
    with pytest.raises(Terminal) as refused:
        _approvers(config)
    assert refused.value.code is ErrorCode.BAD_CONFIG
    assert "line 1" in refused.value.message


def test_whatever_a_worker_has_begun_ends_within_its_drain_and_nobody_kills_it_before() -> None:
    longest = max(options.start_to_close for options in OPTIONS.values())
    assert longest < DRAIN
    assert DRAIN.total_seconds() + LAST_TASKS_S < WORKER_STOP_S


def test_every_step_has_a_role_and_options() -> None:
    assert {step.queue for step in STEPS} <= {QUEUE_OF[role] for role in Role}
    assert set(OPTIONS) == {step.name for step in STEPS}
    assert set(QUEUE_OF.values()) == set(Queue)
