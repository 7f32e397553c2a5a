"""Signed statements and the identities that sign them."""

from datetime import datetime
from typing import Literal

from oncall.model.frozen import Frozen


class Certificate(Frozen):
    """`issuer_key` says that `subject_key` speaks for `subject` between two times. Keys are base64 raw Ed25519.

    The signature (base64) is Ed25519 over the canonical JSON of the other fields under a domain tag.
    """

    schema_id: Literal["oncall.certificate/1"] = "oncall.certificate/1"
    subject: str
    subject_key: str
    issuer: str
    issuer_key: str
    not_before: datetime
    not_after: datetime
    signature: str = ""


class Envelope(Frozen):
    """A DSSE envelope (https://github.com/secure-systems-lab/dsse) with the signer's certificate chain, leaf first.

    `payload` and `signature` are base64.
    """

    payload_type: str
    payload: str
    signature: str
    chain: tuple[Certificate, ...]
