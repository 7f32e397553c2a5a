"""Where a command's words go: one JSON document on stdout, or a story for people; notes and errors on stderr."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.text import Text

from oncall.rules.text import json_line, plain

PIPED_COLUMNS = 120
_SILENT_SHOWN = 5

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """Adds `--json`, passed to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on one line.")(command)


class Output:
    """The two audiences of one command.

    With `as_json`, `emit` prints on stdout and everything else goes to stderr; without, people's text is the output
    and `emit` prints nothing.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        file = sys.stderr if as_json else sys.stdout
        # Without a terminal there is no width to fit: wide enough for a digest on one line.
        width = None if file.isatty() else PIPED_COLUMNS
        self.console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)

    def emit(self, document: BaseModel | dict[str, Any] | list[Any]) -> None:
        """Prints the command's document as one line of JSON, when JSON was asked for."""
        if self.as_json:
            value = document.model_dump(mode="json") if isinstance(document, BaseModel) else document
            click.echo(json_line(value))

    def show(self, *renderables: RenderableType) -> None:
        """Prints for people. A str is printed as it is: pass untrusted text through `plain` first."""
        for renderable in renderables:
            # A line of text is left to the terminal to wrap, so that a path or digest can be copied whole.
            self.console.print(renderable, soft_wrap=isinstance(renderable, str | Text))

    def note(self, text: str) -> None:
        """Prints one line beside the result, on stderr in any case."""
        click.echo(plain(text), err=True)


def note_silent(out: Output, silent: tuple[str, ...]) -> None:
    """Notes which running incidents did not answer."""
    if silent:
        shown = ", ".join(silent[:_SILENT_SHOWN]) + ", …" * (len(silent) > _SILENT_SHOWN)
        out.note(f"warning: {len(silent)} running incidents did not answer and are left out: {shown}")


def interactive() -> bool:
    """Whether a person is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()
