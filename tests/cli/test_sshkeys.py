"""Contract: a key made or used without ssh-keygen is the same key, and its signature the same bytes, as with it.

Every failure is one line that names the key and what to do.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from oncall.cli import sshkeys
from oncall.model.access import NAMESPACE_DECISION
from oncall.model.errors import ErrorCode, Terminal

needs_ssh_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="openssh-client is not installed")


@pytest.fixture
def without_ssh_keygen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))


def _verify(key: sshkeys.PublicKey, signature: str, message: bytes, folder: Path) -> bool:
    (folder / "signers").write_text(f'dana namespaces="{NAMESPACE_DECISION}" {key.line}\n')
    (folder / "sig").write_text(signature)
    command = ["ssh-keygen", "-Y", "verify", "-f", "signers", "-I", "dana", "-n", NAMESPACE_DECISION, "-s", "sig"]
    return subprocess.run(command, input=message, cwd=folder, capture_output=True, check=False).returncode == 0


@needs_ssh_keygen
@pytest.mark.parametrize("message", [b"", b"x", b"y" * 10_000], ids=["empty", "one", "long"])
def test_both_signers_write_the_same_bytes_and_openssh_accepts_them(tmp_path: Path, message: bytes) -> None:
    key = tmp_path / "key"
    public = sshkeys.generate(key, "dana", passphrase_prompt=False)
    ours = sshkeys.sign_in_process(key, message, NAMESPACE_DECISION)
    assert ours == sshkeys.sign(key, message, NAMESPACE_DECISION)
    assert _verify(public, ours, message, tmp_path)
    assert not _verify(public, ours, message + b"!", tmp_path)


@needs_ssh_keygen
def test_a_key_made_without_ssh_keygen_is_one_that_ssh_keygen_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "keys" / "key"
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    public = sshkeys.generate(key, "dana", passphrase_prompt=False)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    without = sshkeys.sign(key, b"m", NAMESPACE_DECISION)
    monkeypatch.setenv("PATH", path)
    assert sshkeys.sign(key, b"m", NAMESPACE_DECISION) == without
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert public.fingerprint in listed


@needs_ssh_keygen
def test_a_passphrase_nobody_can_type_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret-phrase", "-f", str(key)], check=True)
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho wrong-phrase\n")
    askpass.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(askpass))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    with pytest.raises(Terminal) as with_it:
        sshkeys.sign(key, b"m", NAMESPACE_DECISION)
    assert with_it.value.code is ErrorCode.BAD_CONFIG
    assert "passphrase" in with_it.value.message
    assert "phrase" not in with_it.value.message.replace("passphrase", "")
    askpass.write_text("#!/bin/sh\necho secret-phrase\n")
    assert sshkeys.sign(key, b"m", NAMESPACE_DECISION).startswith("-----BEGIN SSH SIGNATURE-----")


@needs_ssh_keygen
def test_without_ssh_keygen_a_protected_or_foreign_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret-phrase", "-f", "locked"], cwd=tmp_path, check=True
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", "ecdsa"], cwd=tmp_path, check=True)
    (tmp_path / "junk").write_text("not a key")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("locked", "ecdsa", "junk"):
        with pytest.raises(Terminal, match="openssh-client"):
            sshkeys.sign(tmp_path / name, b"m", NAMESPACE_DECISION)


@pytest.mark.usefixtures("without_ssh_keygen")
def test_a_passphrase_needs_ssh_keygen(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="ssh-keygen is missing"):
        sshkeys.generate(tmp_path / "key", "dana", passphrase_prompt=True)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    key = tmp_path / "key"
    sshkeys.generate(key, "dana", passphrase_prompt=False)
    before = key.read_bytes()
    with pytest.raises(Terminal, match="exists already"):
        sshkeys.generate(key, "dana", passphrase_prompt=False)
    assert key.read_bytes() == before


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="keys init"):
        sshkeys.sign(tmp_path / "none", b"m", NAMESPACE_DECISION)
    with pytest.raises(Terminal, match="keys init"):
        sshkeys.read_public_key(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "a b c"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(Terminal, match="not an OpenSSH public key"):
        sshkeys.parse_public_key(text, "file.pub")
