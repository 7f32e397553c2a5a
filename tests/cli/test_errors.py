"""Contract: whatever is wrong, one line says what, where and what to do; the exit code says whose turn it is.

0 done, 1 the answer is no, 2 usage or configuration, 3 a service is unreachable. Never a traceback. With --json there
is exactly one JSON document on stdout, also when the command fails.
"""

import base64
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oncall.cli import main
from oncall.cli.exits import exit_code
from oncall.model.errors import ErrorCode, Retryable, Terminal
from tests.cli.command import oncall

NOWHERE = {"TEMPORAL_ADDRESS": "127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONCALL_CONFIG", "ONCALL_STATE", "ONCALL_KEY", "TEMPORAL_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.run(arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return code, captured.out, captured.err


GOOD = "state: s\napprovers: a\npolicy: p.yaml\nconnect: {url: http://127.0.0.1:1}\nsources: {telemetry: t}\n"


def config(folder: Path, text: str = GOOD) -> str:
    path = folder / "oncall.yaml"
    path.write_text(text)
    return str(path)


TRIGGER = ("trigger", "--anomaly", "elevated_errors", "--severity", "critical")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("demo", "--scenario", "nonsense"), "unknown scenario 'nonsense'; known are cascading_failure"),
        (("drill", "nonsense"), "unknown scenario 'nonsense'"),
        (("drill",), "name scenarios, or give --all"),
        (("demo", "--seed", "many"), "--seed"),
        (("nonsense",), "nonsense"),
        (("trigger", "--anomaly", "x", "--severity", "dreadful"), "dreadful"),
        (("report",), "INCIDENT"),
        (TRIGGER, "oncall.yaml: there is none in"),
        (("actions",), "oncall.yaml: there is none in"),
        (("approvers", "list"), "oncall.yaml: there is none in"),
        (("approvers", "add", "dana", "--key", "k.pub", "--approvers", "a"), "k.pub: No such file"),
        (("replay", "missing.json"), "missing.json: no such file"),
        (("approve", "req-123456789abc"), "keys init"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["people", "json"])
def test_wrong_usage_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str, as_json: bool
) -> None:
    code, out, err = run(capsys, *arguments, *(["--json"] * as_json))
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert says in line
    if as_json:
        assert out.count("\n") == 1
        assert json.loads(out)["error"]["message"] in line
    else:
        assert out == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("state: [unclosed", "line"),
        ("just words", "expected a mapping"),
        ("state: s\n", "approvers"),
        (
            "state: s\napprovers: a\npolicy: p\nconnect: {url: u}\nsources: {telemetry: t}\nsecret_typo: 1\n",
            "secret_typo",
        ),
        ("\x00", "not valid YAML"),
        (f"{GOOD}tenant: ACME\n", "tenant"),
        (f"{GOOD}references: {{database_read: 'op://a/{{zone}}'}}\n", "references.database_read"),
        (f"{GOOD}references: {{flags_write: 'op:/a/b'}}\n", "references.flags_write"),
    ],
)
def test_a_malformed_configuration_names_file_and_field(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    path = config(tmp_path, text)
    code, _, err = run(capsys, *TRIGGER)
    assert code == 2
    assert path in err
    assert says in err
    assert err.count("\n") <= 2


@pytest.mark.parametrize("command", [("approvals",), ("status",), ("report", "i"), ("replay", "i"), TRIGGER])
def test_temporal_down_is_3_and_says_what_to_set(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    config(tmp_path)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    code, out, err = run(capsys, *command, "--json")
    assert code == 3
    assert "no Temporal server answers at 127.0.0.1:1" in err
    assert json.loads(out)["error"]["code"] == "temporal_unreachable"


@pytest.mark.parametrize("form", [("--format", "json"), ("--format=json",)])
def test_a_report_as_json_fails_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    code, out, _ = run(capsys, "report", "incident-1", *form)
    assert code == 3
    assert json.loads(out)["error"]["code"] == "temporal_unreachable"
    assert run(capsys, "report", "incident-1", "--format", "md")[1] == ""


def test_approve_with_temporal_down_is_3(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, "keys", "init", "--no-passphrase", "--name", "dana")[0] == 0
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert run(capsys, "approve", "req-123456789abc")[0] == 3


def test_a_configuration_that_cannot_be_read_leaves_no_key_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config(tmp_path, "state: [unclosed")
    assert run(capsys, "keys", "init", "--no-passphrase", "--name", "dana")[0] == 2
    config(tmp_path)
    assert run(capsys, "keys", "init", "--no-passphrase", "--name", "dana")[0] == 0
    assert "dana" in (tmp_path / "a" / "people.yaml").read_text()


def test_a_key_whose_signatures_do_not_count_is_not_enrolled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = b"sk-ssh-ed25519@openssh.com"
    blob = base64.b64encode(len(name).to_bytes(4, "big") + name + b"\0\0\0\x01x").decode()
    (tmp_path / "dana.pub").write_text(f"{name.decode()} {blob} dana\n")
    code, _, err = run(capsys, "approvers", "add", "dana", "--key", "dana.pub", "--approvers", "a")
    assert code == 2
    assert "ssh-ed25519 and ssh-rsa keys can" in err
    assert not (tmp_path / "a").exists()


def test_text_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config(tmp_path)
    code, _, err = run(capsys, "trigger", "--anomaly", "caf\udce9", "--severity", "low")
    assert code == 2
    assert "is not UTF-8 text" in err


def test_a_history_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for text in ('{"events":[{"eventId":"abc"}]}', "{}", "[]", "no"):
        (tmp_path / "h.json").write_text(text)
        code, _, err = run(capsys, "replay", "h.json")
        assert code == 2
        assert "not a Temporal history" in err


def test_every_code_has_an_exit_code() -> None:
    assert {exit_code(code) for code in ErrorCode} == {1, 2, 3}
    assert exit_code(ErrorCode.VAULT_UNREACHABLE) == 3
    assert exit_code(ErrorCode.BAD_CONFIG) == 2
    assert exit_code(ErrorCode.SIGNATURE_REFUSED) == 1


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (Terminal(ErrorCode.BAD_CONFIG, "x.yaml: wrong\x1b[31m"), 2, "error: x.yaml: wrong\\x1b[31m"),
        (Retryable(ErrorCode.VAULT_UNREACHABLE, "vault is down"), 3, "error: vault is down"),
        (KeyboardInterrupt(), 1, "error: interrupted"),
        (click.Abort(), 1, "error: interrupted"),
        (ModuleNotFoundError("m", name="aiohttp"), 2, "error: aiohttp is not installed for"),
        (RuntimeError("hunter2"), 1, "error: RuntimeError inside oncall; the details are in"),
    ],
)
def test_the_boundary_turns_every_failure_into_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: int, says: str
) -> None:
    @click.command("explode")
    @click.option("--json", "as_json", is_flag=True)
    def explode(as_json: bool) -> None:
        raise failure

    monkeypatch.setitem(main.cli.commands, "explode", explode)
    ran, out, err = run(capsys, "explode", "--json")
    assert ran == code
    (line,) = err.strip().splitlines()  # click ends the line that a Ctrl-C was typed on
    assert line.startswith(says)
    assert "hunter2" not in err + out
    assert json.loads(out)["error"]["message"] in line


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found += _commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", _commands(main.cli), ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(path: tuple[str, ...]) -> None:
    text = CliRunner().invoke(main.cli, [*path, "--help"]).output
    assert f"Example:\n    oncall {' '.join(path)}" in text
    assert "--json" in text


async def test_the_door_itself_fails_like_that_in_a_process_of_its_own(tmp_path: Path) -> None:
    ran = await oncall(tmp_path, "status", "--json", env=NOWHERE)
    assert ran.code == 3
    assert json.loads(ran.stdout)["error"]["code"] == "temporal_unreachable"
    assert ran.error.startswith("error: no Temporal server answers")
