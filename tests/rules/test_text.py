"""Contract: no text from outside reaches a terminal, a Markdown page or an HTML page as anything but itself."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from oncall.rules.text import clipped, json_line, markdown, markup, plain

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil\u2066\u200b\x9b31m\r\n<script>alert(1)</script> [x](javascript:1) `a` | b"


@given(st.text(alphabet=st.characters()))
def test_plain_leaves_no_control_format_or_separator_character(text: str) -> None:
    shown = plain(text)
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in shown)
    shown.encode()


def test_plain_keeps_ordinary_text_and_shows_what_it_neutralised() -> None:
    assert plain("Größe 3 · naïve — 東京") == "Größe 3 · naïve — 東京"
    assert plain("a\x1b[31mb\nc\u202e") == "a\\x1b[31mb\\nc\\u202e"


def test_clipped_never_exceeds_its_limit() -> None:
    assert clipped("x" * 50, 10) == "x" * 9 + "…"
    assert len(clipped("\x1b" * 50, 10)) == 10


@given(st.text())
def test_json_line_is_one_line_of_printable_ascii_and_the_same_value(text: str) -> None:
    line = json_line({"value": text})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"value": text}


def test_markdown_and_markup_interpret_nothing() -> None:
    assert "<script>" not in markdown(HOSTILE)
    assert "\\[x\\]\\(" in markdown(HOSTILE)
    assert "\\`a\\` \\| b" in markdown(HOSTILE)
    assert "<" not in markup(HOSTILE)
    assert '"' not in markup('a" onload="x')
