"""`keys` and `approvers`: a person's signing key, and the list of who may approve."""

import getpass
import os
import re
from pathlib import Path

import click
import yaml

from oncall.cli import settings, sshkeys
from oncall.cli.files import write_whole
from oncall.cli.output import Output, interactive, json_option
from oncall.config import load_approvers
from oncall.model.access import NAMESPACES, Approvers
from oncall.model.errors import ErrorCode, Terminal
from oncall.rules.text import plain
from oncall.trust.allowed_signers import AllowedSigner, parse_allowed_signers
from oncall.trust.ssh import SUPPORTED, fingerprint

SIGNERS = "allowed_signers"
PEOPLE = "people.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def checked_name(name: str) -> str:
    """`name`, if it can stand in an allowed_signers line as one principal. Raises click.BadParameter."""
    if not _NAME.fullmatch(name):
        raise click.BadParameter(f"{plain(name)!r} is not a name: letters, digits and . _ @ + - only, at most 64")
    return name


def add_approver(directory: Path, name: str, key: sshkeys.PublicKey) -> bool:
    """Lets `key` of the person `name` decide, open and abort; False when it already could.

    Creates the two files where they are missing. Raises Terminal(BAD_CONFIG).
    """
    if key.algorithm not in SUPPORTED:
        known = " and ".join(SUPPORTED)
        raise Terminal(ErrorCode.BAD_CONFIG, f"a {plain(key.algorithm)} key cannot decide here; {known} keys can")
    current = read_approvers(directory)
    if current.people.get(key.fingerprint) == name:
        return False
    if key.fingerprint in current.people:
        message = f"{directory / PEOPLE}: the key {key.fingerprint} belongs to {current.people[key.fingerprint]}"
        raise Terminal(ErrorCode.BAD_CONFIG, f"{message}; remove that first")
    namespaces = ",".join(NAMESPACES)
    text = current.allowed_signers
    text += "\n" * (bool(text) and not text.endswith("\n")) + f'{name} namespaces="{namespaces}" {key.line}\n'
    # The map comes last: a key in the list that no person owns cannot decide.
    _write(directory / SIGNERS, text)
    _write(directory / PEOPLE, yaml.safe_dump({"people": {**current.people, key.fingerprint: name}}))
    return True


def remove_approver(directory: Path, who: str) -> tuple[str, ...]:
    """Removes the person `who` or the key with that fingerprint; returns the fingerprints removed."""
    current = read_approvers(directory)
    gone = tuple(print_ for print_, name in current.people.items() if who in (print_, name))
    signers = _signers(directory, current.allowed_signers)
    lines = {signer.line for signer in signers if fingerprint(signer.key) in gone}
    kept = [line for number, line in enumerate(current.allowed_signers.split("\n"), 1) if number not in lines]
    people = {print_: name for print_, name in current.people.items() if print_ not in gone}
    _write(directory / PEOPLE, yaml.safe_dump({"people": people}))
    _write(directory / SIGNERS, "\n".join(kept))
    return gone


def read_approvers(directory: Path) -> Approvers:
    """The list in `directory`; empty where there is none yet. Raises Terminal(BAD_CONFIG)."""
    if not (directory / SIGNERS).exists() and not (directory / PEOPLE).exists():
        return Approvers(allowed_signers="", people={})
    return load_approvers(directory)


def _signers(directory: Path, text: str) -> tuple[AllowedSigner, ...]:
    try:
        return parse_allowed_signers(text)
    except Terminal as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{directory}: {error.message}; correct it by hand") from None


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: {error.strerror}") from None


def _directory(given: Path | None, out: Output) -> Path:
    if given is not None:
        return given.expanduser()
    settings.adopt(out.note)
    return settings.require_config().approvers


_directory_option = click.option(
    "--approvers", "directory", type=click.Path(path_type=Path, file_okay=False), help="The approvers folder."
)


@click.group()
def keys() -> None:
    """A person's SSH signing key.

    \b
    Example:
      oncall keys init
    """


@keys.command("init")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Where to put it.")
@click.option("--name", help="Who you are in the approvers list (default: your login name).")
@click.option("--no-passphrase", is_flag=True, help="Do not ask for a passphrase to protect the key.")
@_directory_option
@json_option
def init(key: Path | None, name: str | None, no_passphrase: bool, directory: Path | None, as_json: bool) -> None:
    """Makes an Ed25519 key to sign decisions with. The first key of a new installation becomes its first approver.

    \b
    Example:
      oncall keys init --name dana
    """
    out = Output(as_json)
    person = checked_name(name or _user())
    path = (key or settings.default_key()).expanduser().absolute()
    ask = not no_passphrase and interactive()
    # Before the key is made: a configuration that cannot be read leaves nothing half done.
    first = _without_list(directory, out)
    public = sshkeys.generate(path, f"{person} oncall", ask)
    if not ask and not no_passphrase:
        out.note("no terminal to ask for a passphrase: the key has none (`ssh-keygen -p -f FILE` adds one)")
    if first is not None:
        add_approver(first, person, public)
    out.emit(
        {
            "key": str(path),
            "public_key": f"{public.line} {public.comment}",
            "fingerprint": public.fingerprint,
            "name": person,
            "approvers": str(first) if first else None,
        }
    )
    out.show(f"key          {path}", f"fingerprint  {public.fingerprint}", f"public key   {public.line}")
    if first:
        out.show(f"{person} is the first approver in {first}")
    else:
        out.show(f"next: an owner of the approvers list runs `oncall approvers add {person} --key {path}.pub`")


def _without_list(given: Path | None, out: Output) -> Path | None:
    """The approvers folder when it has no list yet: joining one that exists is for its owners to decide."""
    if given is None:
        settings.adopt(out.note)
        config = settings.config_if_any()
        given = config.approvers if config else None
    return None if given is None or (given / SIGNERS).exists() else given


@click.group()
def approvers() -> None:
    """Who may approve: OpenSSH allowed_signers plus a map of keys to people.

    \b
    Example:
      oncall approvers list
    """


@approvers.command("list")
@_directory_option
@json_option
def list_(directory: Path | None, as_json: bool) -> None:
    """Lists people and their keys.

    \b
    Example:
      oncall approvers list --approvers ./approvers
    """
    out = Output(as_json)
    folder = _directory(directory, out)
    current = load_approvers(folder)
    entries = [
        {
            "name": current.people.get(fingerprint(signer.key)),
            "fingerprint": fingerprint(signer.key),
            "key_type": signer.key_type,
            "namespaces": list(signer.namespaces) if signer.namespaces is not None else None,
            "valid_before": signer.valid_before.isoformat() if signer.valid_before else None,
        }
        for signer in _signers(folder, current.allowed_signers)
    ]
    out.emit({"approvers": entries})
    if not entries:
        out.show(f"nobody may approve: {folder / SIGNERS} is empty")
    for entry in entries:
        out.show(plain(f"{entry['name'] or '(nobody: not in people.yaml)'}  {entry['fingerprint']}"))


@approvers.command("add")
@click.argument("name")
@click.option("--key", "file", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Their .pub file.")
@_directory_option
@json_option
def add(name: str, file: Path, directory: Path | None, as_json: bool) -> None:
    """Lets a person's key decide.

    \b
    Example:
      oncall approvers add dana --key dana.pub
    """
    out = Output(as_json)
    folder = _directory(directory, out)
    public = sshkeys.read_public_key(file)
    added = add_approver(folder, checked_name(name), public)
    out.emit({"name": name, "fingerprint": public.fingerprint, "added": added, "approvers": str(folder)})
    when = "may approve, once the workers have been restarted," if added else "could already approve"
    out.show(f"{name} {when} with {public.fingerprint}")


@approvers.command("remove")
@click.argument("who")
@_directory_option
@json_option
def remove(who: str, directory: Path | None, as_json: bool) -> None:
    """Takes a person (or one key, by its fingerprint) off the list.

    \b
    Example:
      oncall approvers remove dana
    """
    out = Output(as_json)
    folder = _directory(directory, out)
    gone = remove_approver(folder, who)
    if not gone:
        raise Terminal(ErrorCode.NOT_FOUND, f"{folder}: no approver {who!r}; `oncall approvers list` shows them")
    out.emit({"removed": list(gone), "approvers": str(folder)})
    out.show(*(f"removed {fingerprint_}" for fingerprint_ in gone))
