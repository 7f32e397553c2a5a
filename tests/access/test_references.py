"""Contract: a reference that parses prints as it was written; anything else is Terminal(BAD_REFERENCE) naming it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall.access.references import Reference
from oncall.model.errors import ErrorCode, Terminal

PART = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters='/?"\\'), min_size=1, max_size=20)


@given(PART, PART, st.none() | PART, PART)
def test_what_parses_prints_as_it_was(vault: str, item: str, section: str | None, field: str) -> None:
    reference = Reference(vault, item, section, field)
    assert Reference.parse(str(reference)) == reference


def test_three_and_four_parts() -> None:
    assert Reference.parse("op://Infrastructure/aws-cloudwatch/credential").section is None
    assert Reference.parse("op://Infrastructure/db/us-east-1/password") == Reference(
        "Infrastructure", "db", "us-east-1", "password"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "op://", "op://v", "op://v/i", "op://v/i/s/f/x", "op:///i/f", "op://v//f", "op://v/i/", "OP://v/i/f"),
        *("http://v/i/f", "op://v/i/f\n", "op://v/i /f", "op://v/i/f\0", "op://v/i/f?attribute=otp", 'op://v/"/f'),
        "op://v/i/" + "f" * 600,
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(Terminal) as caught:
        Reference.parse(text)
    assert caught.value.code is ErrorCode.BAD_REFERENCE
    assert repr(text[:200]) in caught.value.message


@given(st.text(max_size=60).map(lambda text: "op://" + text))
def test_nothing_else_is_raised(text: str) -> None:
    try:
        printed = str(Reference.parse(text))
    except Terminal:
        return
    assert printed == text
