"""OpenSSH's allowed_signers format (ssh-keygen(1), "ALLOWED SIGNERS"), read strictly.

Stricter than ssh-keygen where its leniency would make the meaning depend on the machine or on guesswork: times need a
`Z` (without one they mean the local zone), and a line's principals are names, not patterns.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from oncall.model.errors import ErrorCode, Terminal

_OPTION = re.compile(r'(?P<name>[A-Za-z-]+)(?:="(?P<value>[^"]*)")?')
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?Z")


@dataclass(frozen=True)
class AllowedSigner:
    """One line: a key (its type and its SSH wire encoding) and what it is allowed."""

    line: int
    principals: tuple[str, ...]
    key_type: str
    key: bytes = field(repr=False)
    namespaces: tuple[str, ...] | None
    valid_after: datetime | None
    valid_before: datetime | None
    cert_authority: bool

    def refusal(self, namespace: str, at: datetime) -> str | None:
        """Why this line does not allow its key to sign in `namespace` at `at`; None when it does."""
        if self.cert_authority:
            return "is a cert-authority; certificates are not supported"
        if any(character in name for name in self.principals for character in "*?!"):
            return "names its principal by a pattern; name the person"
        if self.namespaces is not None and not _matches(namespace, self.namespaces):
            return f"does not allow the namespace {namespace}"
        if self.valid_after is not None and at < self.valid_after:
            return f"is valid only after {self.valid_after:%Y-%m-%d %H:%M:%S} UTC"
        if self.valid_before is not None and at > self.valid_before:
            return f"was valid only before {self.valid_before:%Y-%m-%d %H:%M:%S} UTC"
        return None


def parse_allowed_signers(text: str) -> tuple[AllowedSigner, ...]:
    """The lines of an allowed_signers file; comments and blank lines are skipped.

    Raises Terminal(NOT_AN_APPROVER) naming the first line that cannot be read: a list that is partly understood is
    not a list of who may approve.
    """
    lines = enumerate(text.split("\n"), start=1)
    return tuple(_parse(number, line.strip()) for number, line in lines if line.strip() and line.strip()[0] != "#")


def _parse(number: int, line: str) -> AllowedSigner:
    principals, rest = _principals(number, line)
    namespaces: tuple[str, ...] | None = None
    after = before = None
    cert_authority = False
    if not rest.startswith(("ssh-", "ecdsa-", "sk-", "webauthn-")):
        options, rest = _options(number, rest)
        for name, value in options:
            if name == "cert-authority" and value is None:
                cert_authority = True
            elif name == "namespaces" and value:
                namespaces = tuple(value.split(","))
            elif name == "valid-after" and value:
                after = _time(number, value)
            elif name == "valid-before" and value:
                before = _time(number, value)
            else:
                raise _bad(number, f"the option {name!r} is not understood")
    words = rest.split(maxsplit=2)
    if len(words) < 2:
        raise _bad(number, "expected principals, options, key type and key")
    try:
        key = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise _bad(number, "the key is not base64") from None
    # The type is written twice, as a word and inside the key; a line where they differ has been tampered with.
    name_length = int.from_bytes(key[:4], "big")
    if key[4 : 4 + name_length] != words[0].encode():
        raise _bad(number, "the key is not of the type that the line names")
    return AllowedSigner(number, principals, words[0], key, namespaces, after, before, cert_authority)


def _principals(number: int, line: str) -> tuple[tuple[str, ...], str]:
    if line.startswith('"'):
        names, quote, rest = line[1:].partition('"')
        if not quote:
            raise _bad(number, "a quote is not closed")
    else:
        names, _, rest = line.replace("\t", " ").partition(" ")
    principals = tuple(names.split(","))
    if not all(principals):
        raise _bad(number, "a principal is empty")
    return principals, rest.strip()


def _options(number: int, text: str) -> tuple[list[tuple[str, str | None]], str]:
    options: list[tuple[str, str | None]] = []
    position = 0
    while True:
        match = _OPTION.match(text, position)
        if match is None:
            raise _bad(number, "the options are not understood")
        name = match["name"].lower()
        if any(name == seen for seen, _ in options):
            raise _bad(number, f"the option {name!r} is given twice")
        options.append((name, match["value"]))
        position = match.end()
        if text[position : position + 1] != ",":
            break
        position += 1
    if text[position : position + 1] not in (" ", "\t"):
        raise _bad(number, "expected a key after the options")
    return options, text[position:].strip()


def _time(number: int, text: str) -> datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        raise _bad(number, "a time must read YYYYMMDDZ or YYYYMMDDHHMM[SS]Z")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise _bad(number, "a time does not exist") from None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """OpenSSH's match_pattern_list: `*` and `?` are wildcards; a matching `!pattern` refuses."""
    found = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        body = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern[1 if negated else 0 :])
        if re.fullmatch(body, name, re.DOTALL):
            if negated:
                return False
            found = True
    return found


def _bad(number: int, why: str) -> Terminal:
    return Terminal(ErrorCode.NOT_AN_APPROVER, f"allowed_signers line {number}: {why}")
