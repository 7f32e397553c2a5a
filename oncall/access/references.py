"""`op://` secret references (https://developer.1password.com/docs/cli/secret-reference-syntax)."""

from dataclasses import dataclass

from oncall.model.errors import ErrorCode, Terminal

_SCHEME = "op://"
_MAX_LENGTH = 512


@dataclass(frozen=True)
class Reference:
    """Where one secret is; never the secret. `section` is None for a field outside any section."""

    vault: str
    item: str
    section: str | None
    field: str

    @staticmethod
    def parse(text: str) -> "Reference":
        """The reference that `op://vault/item[/section]/field` spells; `str` gives the same text back.

        Raises Terminal(BAD_REFERENCE) naming the reference.
        """
        if not text.startswith(_SCHEME) or len(text) > _MAX_LENGTH:
            raise _bad(text, "it does not start with op://" if len(text) <= _MAX_LENGTH else "it is too long")
        parts = text.removeprefix(_SCHEME).split("/")
        if len(parts) not in (3, 4):
            raise _bad(text, "expected op://vault/item/field or op://vault/item/section/field")
        for part in parts:
            # A part that differs from another only in blanks would name the same thing to a reader.
            if not part or part != part.strip() or not part.isprintable():
                raise _bad(text, "a part is empty, starts or ends with a blank, or holds an unprintable character")
            # Quotes would end the filter that a lookup by name sends; `?` begins attributes, which we do not read.
            if any(character in part for character in '?"\\'):
                raise _bad(text, 'a part holds one of ? " \\')
        section = parts[2] if len(parts) == 4 else None
        return Reference(parts[0], parts[1], section, parts[-1])

    def __str__(self) -> str:
        """The text that `parse` reads."""
        section = f"{self.section}/" if self.section is not None else ""
        return f"{_SCHEME}{self.vault}/{self.item}/{section}{self.field}"


def _bad(text: str, why: str) -> Terminal:
    return Terminal(ErrorCode.BAD_REFERENCE, f"{text[:200]!r} is not a secret reference: {why}")
