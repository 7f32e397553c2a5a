"""Renders a document as GitHub-flavoured Markdown in which no text is interpreted."""

import re
from collections.abc import Iterable

from oncall.cli.postmortem import Block, Bullets, Evidence, Grid, Heading, Paragraph
from oncall.rules.text import markdown, plain


def to_markdown(blocks: Iterable[Block]) -> str:
    """The whole document, ending with a newline."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {markdown(text)}"
        case Paragraph(text):
            return markdown(text)
        case Bullets(items):
            return "\n".join(f"- {markdown(item)}" for item in items)
        case Grid(header, rows):
            lines = [header, ("---",) * len(header)]
            head = [f"| {' | '.join(markdown(cell) for cell in lines[0])} |", f"|{'|'.join(lines[1])}|"]
            return "\n".join(head + [f"| {' | '.join(markdown(cell) for cell in row)} |" for row in rows])
        case Evidence(title, text):
            return f"{markdown(title)}\n\n{_fenced(text)}"


def _fenced(text: str) -> str:
    # Longer than any run of backticks inside: the text cannot close its own fence.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    body = "\n".join(plain(line) for line in text.split("\n"))
    return f"{fence}json\n{body}\n{fence}"
