"""A person's SSH signing key: made, described and used, with `ssh-keygen` where it is installed.

Slim Debian images have no openssh-client, so an unencrypted Ed25519 key can also be made and used without it; the
bytes are the same (Ed25519 signatures are deterministic). Everything else (passphrases, agents, hardware keys, other
key types) needs `ssh-keygen`. Format: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
"""

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from oncall.model.errors import ErrorCode, Terminal
from oncall.rules.text import plain
from oncall.trust.ssh import fingerprint

_INSTALL = "install openssh-client"


@dataclass(frozen=True)
class PublicKey:
    """An OpenSSH public key: its algorithm, its wire format and its comment."""

    algorithm: str
    blob: bytes
    comment: str

    @property
    def line(self) -> str:
        """`<algorithm> <base64>`, as in authorized_keys and allowed_signers."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:<base64>` as `ssh-keygen -l` prints it."""
        return fingerprint(self.blob)


def parse_public_key(text: str, where: str) -> PublicKey:
    """The key in one line of a `.pub` file. Raises Terminal(BAD_CONFIG), naming `where`."""
    fields = text.strip().split(None, 2)
    try:
        blob = base64.b64decode(fields[1], validate=True)
        length = int.from_bytes(blob[:4], "big")
        if blob[4 : 4 + length].decode("ascii") != fields[0] or "\n" in text.strip():
            raise ValueError
    except (IndexError, ValueError):
        message = f"{where}: not an OpenSSH public key; give the .pub file that ssh-keygen wrote"
        raise Terminal(ErrorCode.BAD_CONFIG, message) from None
    return PublicKey(fields[0], blob, fields[2] if len(fields) > 2 else "")


def read_public_key(key: Path) -> PublicKey:
    """The public half of the key at `key` (private or `.pub`). Raises Terminal(BAD_CONFIG)."""
    path = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    try:
        return parse_public_key(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        message = f"{path}: {reason}; make a key with `oncall keys init` or give another with --key"
        raise Terminal(ErrorCode.BAD_CONFIG, message) from None


def generate(key: Path, comment: str, passphrase_prompt: bool) -> PublicKey:
    """Makes an Ed25519 key pair at `key` (0600) and `key`.pub; never replaces a file.

    With `passphrase_prompt`, `ssh-keygen` asks for one on the terminal. Raises Terminal(BAD_CONFIG).
    """
    public = key.with_name(key.name + ".pub")
    for path in (key, public):
        if path.exists():
            raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: exists already; choose another file with --key")
    try:
        key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.which("ssh-keygen"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-C", comment, "-f", str(key)]
            done = subprocess.run(  # noqa: S603 - arguments are ours, no shell
                command + ([] if passphrase_prompt else ["-N", ""]),
                stdout=subprocess.DEVNULL,
                stderr=None if passphrase_prompt else subprocess.PIPE,
                check=False,
            )
            if done.returncode != 0:
                raise Terminal(ErrorCode.BAD_CONFIG, f"{key}: ssh-keygen made no key{_last_line(done.stderr)}")
        elif passphrase_prompt:
            message = f"ssh-keygen is missing, and a key with a passphrase needs it: {_INSTALL}, or --no-passphrase"
            raise Terminal(ErrorCode.BAD_CONFIG, message)
        else:
            _write_pair(key, public, comment)
    except OSError as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{key}: {error.strerror}") from None
    return read_public_key(key)


def _write_pair(key: Path, public: Path, comment: str) -> None:
    private = Ed25519PrivateKey.generate()
    handle = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    public.write_text(f"{line} {comment}\n", encoding="utf-8")


def sign(key: Path, message: bytes, namespace: str) -> str:
    """An armored SSHSIG over `message`, made with the private key at `key`, or by the agent that holds `key`.pub.

    Raises Terminal(BAD_CONFIG) when there is no such key or it cannot be used.
    """
    if not os.path.exists(key):
        message_ = f"{key}: no such key; make one with `oncall keys init` or give another with --key"
        raise Terminal(ErrorCode.BAD_CONFIG, message_)
    if shutil.which("ssh-keygen"):
        return _sign_with_ssh_keygen(key, message, namespace)
    return sign_in_process(key, message, namespace)


def _sign_with_ssh_keygen(key: Path, message: bytes, namespace: str) -> str:
    # A file instead of stdin: with stdin taken, ssh-keygen could not ask for the passphrase on the terminal.
    with tempfile.TemporaryDirectory(prefix="oncall-sign-") as folder:  # mkdtemp: 0700
        document = Path(folder) / "message"
        document.write_bytes(message)
        done = subprocess.run(  # noqa: S603 - arguments are ours, no shell
            ["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", str(key), str(document)],  # noqa: S607
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        signature = document.with_name("message.sig")
        if done.returncode != 0 or not signature.exists():
            advice = "check the passphrase, or that the agent or hardware key is there"
            raise Terminal(ErrorCode.BAD_CONFIG, f"{key}: ssh-keygen did not sign{_last_line(done.stderr)}; {advice}")
        return signature.read_text(encoding="ascii")


def _last_line(output: bytes | None) -> str:
    lines = (output or b"").decode(errors="replace").strip().splitlines()
    return f" ({plain(lines[-1].strip())})" if lines else ""


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def sign_in_process(key: Path, message: bytes, namespace: str) -> str:
    """As `sign`, without `ssh-keygen`: an unencrypted OpenSSH Ed25519 private key only. Raises Terminal(BAD_CONFIG)."""
    try:
        private = load_ssh_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{key}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        message_ = f"{key}: without ssh-keygen only an Ed25519 key that has no passphrase can sign; {_INSTALL}"
        raise Terminal(ErrorCode.BAD_CONFIG, message_)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    head = _string(namespace.encode()) + _string(b"") + _string(b"sha512")
    signed = private.sign(b"SSHSIG" + head + _string(hashlib.sha512(message).digest()))
    blob = (
        b"SSHSIG"
        + (1).to_bytes(4, "big")
        + _string(_string(b"ssh-ed25519") + _string(public))
        + head
        + _string(_string(b"ssh-ed25519") + _string(signed))
    )
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(("-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""))
