"""Where a command finds its state, its configuration and its Temporal server.

What the environment says comes first: `ONCALL_CONFIG`, and Temporal's own `TEMPORAL_*`. Where it says nothing, a
running `oncall dev` is used, which leaves its address in `dev/stack.json` below the state folder.
"""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from oncall.cli.files import write_whole
from oncall.config import ENV_CONFIG, Config, load_config
from oncall.model.errors import ErrorCode, Terminal

ENV_STATE = "ONCALL_STATE"
ENV_KEY = "ONCALL_KEY"
ENV_ADDRESS = "TEMPORAL_ADDRESS"
_TEMPORAL = (ENV_ADDRESS, "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
_SCHEMA = "oncall.stack/1"


@dataclass(frozen=True)
class RunningStack:
    """What `oncall dev` says about itself while it runs: enough for other commands to find it."""

    pid: int
    temporal_address: str
    temporal_ui: str
    config: str
    key: str
    estate_admin: str
    estate_admin_token_file: str

    def write(self, path: Path) -> None:
        """Leaves the record at `path`, all of it or none."""
        write_whole(path, json.dumps({"schema": _SCHEMA, **self.__dict__}, indent=1))


def program() -> str:
    """How this program was started, for a command that people can copy: `oncall`, or interpreter and script."""
    script = Path(sys.argv[0])
    if script.name != "starter.py":
        return "oncall"
    interpreter = Path(sys.executable)
    with contextlib.suppress(ValueError):
        interpreter = interpreter.relative_to(Path.cwd())
    return shlex.join((str(interpreter), str(script)))


def state_root() -> Path:
    """`$ONCALL_STATE`, else `.state` in the working directory; absolute."""
    return Path(os.environ.get(ENV_STATE) or ".state").absolute()


def stack_file() -> Path:
    """Where `oncall dev` leaves its record."""
    return state_root() / "dev" / "stack.json"


def default_key() -> Path:
    """`$ONCALL_KEY`, else `oncall/id_ed25519` in the user's configuration folder (XDG Base Directory)."""
    if given := os.environ.get(ENV_KEY):
        return Path(given).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "oncall" / "id_ed25519"


def running_stack() -> RunningStack | None:
    """The stack of a running `oncall dev`, or None when there is none (or its record is left from a dead one)."""
    try:
        record = json.loads(stack_file().read_text(encoding="utf-8"))
        if record.pop("schema") != _SCHEMA:
            return None
        stack = RunningStack(**record)
        os.kill(stack.pid, 0)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return stack


def temporal_is_given() -> bool:
    """Whether the environment says which Temporal server is meant."""
    return any(os.environ.get(name) for name in _TEMPORAL)


@contextlib.contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Sets variables of this process, or unsets those that are None, and puts them back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def embedded_server(address: str) -> dict[str, str | None]:
    """What the environment must say for clients of an embedded server at `address`, None for what it must not say.

    The user's own namespace, TLS, API key or profile is for another server: applied to this one, it would neither be
    reached nor, in plaintext, be the right place for a key.
    """
    others = {name: None for name in os.environ if name.startswith("TEMPORAL_")}
    return {**others, ENV_ADDRESS: address, "TEMPORAL_NAMESPACE": "default", "TEMPORAL_CONFIG_FILE": os.devnull}


def adopt(note: Callable[[str], None]) -> RunningStack | None:
    """Points the environment at a running `oncall dev` unless it points somewhere already; says so through `note`."""
    if temporal_is_given() or os.environ.get(ENV_CONFIG):
        return None
    stack = running_stack()
    if stack is None:
        return None
    _set({**embedded_server(stack.temporal_address), ENV_CONFIG: stack.config})
    note(f"using the embedded stack of `oncall dev` (pid {stack.pid}, Temporal at {stack.temporal_address})")
    return stack


def config_if_any() -> Config | None:
    """The configuration, or None where none was named and none lies in the working directory.

    Raises Terminal(BAD_CONFIG) for one that is there and wrong.
    """
    if not os.environ.get(ENV_CONFIG) and not Path("oncall.yaml").exists():
        return None
    return load_config()


def require_config() -> Config:
    """The configuration. Raises Terminal(BAD_CONFIG) saying how to name one where there is none."""
    config = config_if_any()
    if config is None:
        message = f"oncall.yaml: there is none in {Path.cwd()}; set {ENV_CONFIG}, or start `oncall dev` first"
        raise Terminal(ErrorCode.BAD_CONFIG, message)
    return config


def own_key(given: Path | None, stack: RunningStack | None, note: Callable[[str], None]) -> Path | None:
    """The key to sign with, as `signing_key` finds it; None, said through `note`, where there is none."""
    try:
        return signing_key(given, stack, note)
    except Terminal:
        note("no signing key (`oncall keys init` makes one): opened by nobody known")
        return None


def signing_key(given: Path | None, stack: RunningStack | None, note: Callable[[str], None]) -> Path:
    """The key to sign with: `--key`, else the user's own, else the one that `oncall dev` made for its run.

    Raises Terminal(BAD_CONFIG) when there is none.
    """
    if given is not None:
        return given.expanduser()
    if stack is not None and not os.environ.get(ENV_KEY):
        note(f"signing with the key that `oncall dev` made for this run ({stack.key}); --key chooses another")
        return Path(stack.key)
    own = default_key()
    # A public half alone is enough for a key that an agent or a hardware token holds.
    if not own.exists() and own.with_name(own.name + ".pub").exists():
        return own.with_name(own.name + ".pub")
    if not own.exists():
        message = f"{own}: no signing key; make one with `oncall keys init` or give one with --key"
        raise Terminal(ErrorCode.BAD_CONFIG, message)
    return own
