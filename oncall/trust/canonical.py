"""One byte string per value: RFC 8785 canonical JSON, and digests over it."""

import hashlib
from typing import Any

import rfc8785
from pydantic import BaseModel

from oncall.model.errors import ErrorCode, Terminal


def canonical(value: Any) -> bytes:
    """The RFC 8785 canonical JSON of a model or of a JSON value, as UTF-8.

    Raises Terminal(INTERNAL) for what JSON cannot say exactly: NaN, infinities, integers beyond ±(2^53 - 1), lone
    surrogates, nesting too deep to walk. The message never repeats the value.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    try:
        return rfc8785.dumps(plain)
    except (ValueError, RecursionError) as error:
        raise Terminal(
            ErrorCode.INTERNAL, f"a value has no canonical JSON ({type(error).__name__}): not a number, too big or deep"
        ) from None


def digest(domain: str, value: Any) -> str:
    """`sha256:<hex>` over the domain tag, a zero byte and the canonical JSON.

    The tag keeps equal JSON of two kinds (a policy, a request) from ever sharing a digest.
    """
    return "sha256:" + hashlib.sha256(domain.encode() + b"\0" + canonical(value)).hexdigest()
