"""Real SSH keys and signatures, made by ssh-keygen."""

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from oncall.model.access import Approvers


@dataclass(frozen=True)
class SshKey:
    """A key pair on disk: `path` is the private key, `public` the line of its .pub file."""

    path: Path
    public: str
    fingerprint: str

    def sign(self, message: bytes, namespace: str) -> str:
        """The armored signature, as `ssh-keygen -Y sign` prints it."""
        done = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-f", str(self.path), "-n", namespace],
            input=message,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="oncall-test-keys-")


def ssh_key(name: str, kind: str = "ed25519", bits: int = 0) -> SshKey:
    """The key called `name`, made once per test process."""
    return _made(name, kind, bits)


@cache
def _made(name: str, kind: str, bits: int) -> SshKey:
    path = Path(_folder().name) / f"{name}-{kind}-{bits}"
    size = ["-b", str(bits)] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", name, "-f", str(path)], check=True)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], capture_output=True, text=True, check=True)
    return SshKey(path, path.with_suffix(".pub").read_text().strip(), listed.stdout.split()[1])


def approvers(*people: tuple[str, SshKey], options: str = "") -> Approvers:
    """A list in which each person has one key, with `options` on every line."""
    lines = [f"{person} {options} {key.public}" if options else f"{person} {key.public}" for person, key in people]
    return Approvers(
        allowed_signers="\n".join(lines) + "\n", people={key.fingerprint: person for person, key in people}
    )
