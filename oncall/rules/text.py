"""Makes untrusted text harmless before it is printed, written as Markdown or served as HTML.

Log lines, query texts, labels and annotations can carry terminal escapes (ECMA-48), bidirectional overrides
("Trojan Source", CVE-2021-42574), Markdown and HTML. What is neutralised stays visible, so that nobody is fooled.
"""

import html
import json
import re
import unicodedata
from typing import Any

# Cc: controls; Cf: format characters (bidi, zero-width, tags); Cs: lone surrogates; Zl, Zp: line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~:@])")


def plain(text: str) -> str:
    """`text` on one line with every control, format and separator character written out as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(char) if unicodedata.category(char) in _HIDDEN else char for char in text)


def _visible(char: str) -> str:
    code = ord(char)
    if char == "\n":
        return "\\n"
    if char == "\t":
        return "\\t"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clipped(text: str, limit: int) -> str:
    """`plain(text)`, at most `limit` characters long, an ellipsis standing for the rest."""
    text = plain(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def markdown(text: str) -> str:
    """`text` for a line of Markdown (CommonMark, GFM tables): shown as it is, never interpreted."""
    return _MARKDOWN.sub(r"\\\1", html.escape(plain(text), quote=False))


def markup(text: str) -> str:
    """`text` for HTML content and quoted attributes."""
    return html.escape(plain(text), quote=True)


def json_line(value: Any) -> str:
    """`value` as JSON on one line of printable ASCII: no terminal interprets any of it."""
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": ")).replace("\x7f", "\\u007f")
