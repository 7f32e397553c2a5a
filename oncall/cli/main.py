"""The command group and its one error boundary: whatever fails, one line and an exit code, never a traceback."""

import importlib
import itertools
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from oncall.cli.exits import ANSWER_IS_NO, DONE, USAGE, exit_code
from oncall.model.errors import ErrorCode, OncallError
from oncall.rules.text import json_line, plain

COMMANDS = {
    "abort": "abort",
    "actions": "catalogue",
    "approvals": "approve",
    "approve": "approve",
    "approvers": "keys",
    "demo": "demo",
    "deny": "approve",
    "dev": "dev",
    "drill": "drill",
    "keys": "keys",
    "on-call": "on_call",
    "replay": "incidents",
    "report": "incidents",
    "status": "incidents",
    "trigger": "incidents",
    "watch": "watch",
}
"""Each command and the module of `oncall.cli` that holds it."""


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for: `keys init` needs neither Temporal nor DuckDB, and loading
    both takes longer than all it does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*COMMANDS, *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = importlib.import_module(f"oncall.cli.{COMMANDS[cmd_name]}")
            self.add_command(getattr(module, cmd_name.replace("-", "_")), cmd_name)
        return super().get_command(ctx, cmd_name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """The on-call swarm: 150 agents investigate, a human approves, the remedy is proven.

    \b
    Example:
      oncall demo --seed 7
    """


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    as_json = _wants_json(arguments)
    try:
        result = cli.main(args=list(arguments), prog_name="oncall", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        where = f"`{error.ctx.command_path}`" if error.ctx else "`oncall`"
        hint = f"see `{error.ctx.command_path} --help`" if error.ctx else "see `oncall --help`"
        return _fail(as_json, "usage", f"{where}: {_sentence(error.format_message())}; {hint}", USAGE)
    except click.ClickException as error:
        return _fail(as_json, "usage", _sentence(error.format_message()), USAGE)
    except OncallError as error:
        return _fail(as_json, error.code.value, error.message, exit_code(error.code))
    except (KeyboardInterrupt, click.Abort):
        return _fail(as_json, "interrupted", "interrupted before it was done; run it again to retry", ANSWER_IS_NO)
    except BrokenPipeError:
        # Whoever read our output has left; a second attempt at flushing it must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ANSWER_IS_NO
    except ModuleNotFoundError as error:
        advice = "install it (`uv sync --extra demo`), or use the .venv that `make demo` made"
        message = f"{error.name} is not installed for {sys.executable}; {advice}"
        return _fail(as_json, ErrorCode.BAD_CONFIG.value, message, USAGE)
    except Exception as error:  # noqa: BLE001 - the boundary: people get one line, the file gets the traceback
        message = f"{type(error).__name__} inside oncall; the details are in {_dump()}; please report it"
        return _fail(as_json, ErrorCode.INTERNAL.value, message, ANSWER_IS_NO)
    return result if isinstance(result, int) else DONE


def _wants_json(arguments: Sequence[str]) -> bool:
    # Before click has parsed them: what click refuses must be JSON as well.
    given = set(arguments)
    return bool({"--json", "--format=json"} & given) or ("--format", "json") in itertools.pairwise(arguments)


def leave(code: int) -> NoReturn:
    """Ends the process with `code`, without tearing the interpreter down.

    Everything of ours is closed by now. Temporal's threads may still be handing an answer to Python, which in 3.11
    crashes an interpreter that is being torn down (PyGILState_Release, exit code 134) and would replace our code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or ANSWER_IS_NO
    os._exit(code)


def _sentence(message: str) -> str:
    return message.rstrip(".").replace("\n", " ")


def _dump() -> str:
    handle, path = tempfile.mkstemp(prefix="oncall-error-", suffix=".txt")  # mkstemp: 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exc(file=file)
    return path


def _fail(as_json: bool, code: str, message: str, status: int) -> int:
    message = plain(message)
    if as_json:
        click.echo(json_line({"error": {"code": code, "message": message}}))
    click.echo(f"error: {message}", err=True)
    return status
