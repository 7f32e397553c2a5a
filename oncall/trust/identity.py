"""Keys that speak for pools, workers and agents, and the statements they sign.

A pool certifies workers, a worker certifies agents, an agent certifies nobody: `pool → worker → agent` is the longest
chain. What a key may certify follows from what its SPIFFE id says it is, so that a stolen agent key can sign as that
one agent and nothing else. Statements are DSSE v1 envelopes over canonical JSON
(https://github.com/secure-systems-lab/dsse/blob/master/protocol.md). Verification reads no clock: the caller says at
which time the keys had to be valid.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ValidationError

from oncall.model.envelope import Certificate, Envelope
from oncall.model.errors import ErrorCode, Terminal
from oncall.trust.canonical import canonical

_CERTIFICATE_DOMAIN = b"oncall.certificate/1\0"
_STORED = "oncall.identity/1"
_SUBJECT = re.compile(r"spiffe://([a-z0-9._-]+)/([A-Za-z0-9._~/-]+)")


class _Rank(Enum):
    POOL = auto()
    WORKER = auto()
    LEAF = auto()


@dataclass(frozen=True, repr=False)
class Identity:
    """A private Ed25519 key, the subject it speaks for, and the certificates that say so, leaf first.

    A pool's chain is empty: its public key is what verifiers pin.
    """

    subject: str
    chain: tuple[Certificate, ...]
    _key: Ed25519PrivateKey = field(compare=False)

    def __repr__(self) -> str:
        """Without the key."""
        return f"Identity({self.subject!r}, {self.public_key!r})"

    @staticmethod
    def pool(subject: str) -> "Identity":
        """A new root of trust; `subject` is `spiffe://<tenant>/pool/<name>`. Raises Terminal(SIGNATURE_REFUSED)."""
        if _rank(subject)[1] is not _Rank.POOL:
            raise _refused(f"{subject!r} is not spiffe://<tenant>/pool/<name>")
        return Identity(subject, (), Ed25519PrivateKey.generate())

    @property
    def public_key(self) -> str:
        """The raw public key as base64."""
        return _encode(self._key.public_key().public_bytes_raw())

    def issue(self, subject: str, not_before: datetime, not_after: datetime) -> "Identity":
        """A fresh key for `subject`, certified by this one between two times.

        Workers are `spiffe://<tenant>/worker/<name>`; any other path is a leaf, an agent for instance. Raises
        Terminal(SIGNATURE_REFUSED) when this identity may not certify that subject.
        """
        _may_issue(self.subject, subject)
        key = Ed25519PrivateKey.generate()
        certificate = Certificate(
            subject=subject,
            subject_key=_encode(key.public_key().public_bytes_raw()),
            issuer=self.subject,
            issuer_key=self.public_key,
            not_before=not_before,
            not_after=not_after,
        )
        signed = certificate.model_copy(update={"signature": _encode(self._key.sign(_certificate_bytes(certificate)))})
        return Identity(subject, (signed, *self.chain), key)

    def sign(self, payload_type: str, payload: BaseModel) -> Envelope:
        """A DSSE envelope over the payload's canonical JSON. Raises Terminal(SIGNATURE_REFUSED) for a pool's key.

        A pool's key only certifies: it stays out of everyday use.
        """
        if not self.chain:
            raise _refused("a pool's key certifies workers and signs nothing else")
        body = canonical(payload)
        return Envelope(
            payload_type=payload_type,
            payload=_encode(body),
            signature=_encode(self._key.sign(pae(payload_type, body))),
            chain=self.chain,
        )

    def to_bytes(self) -> bytes:
        """This identity with its private key, for a file that only its owner can read."""
        return canonical(
            {
                "schema_id": _STORED,
                "subject": self.subject,
                "private_key": _encode(self._key.private_bytes_raw()),
                "chain": [certificate.model_dump(mode="json") for certificate in self.chain],
            }
        )

    @staticmethod
    def from_bytes(data: bytes) -> "Identity":
        """What `to_bytes` stored. Raises Terminal(BAD_CONFIG) for anything else."""
        try:
            stored = json.loads(data)
            if stored["schema_id"] != _STORED:
                raise ValueError
            chain = tuple(Certificate.model_validate(certificate) for certificate in stored["chain"])
            key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(stored["private_key"], validate=True))
            identity = Identity(str(stored["subject"]), chain, key)
            _rank(identity.subject)
        except (ValueError, TypeError, KeyError, RecursionError, ValidationError, Terminal):
            raise Terminal(ErrorCode.BAD_CONFIG, "the stored identity cannot be read") from None
        if chain and (chain[0].subject, chain[0].subject_key) != (identity.subject, identity.public_key):
            raise Terminal(ErrorCode.BAD_CONFIG, "the stored identity's certificate is for another key")
        return identity


def pae(payload_type: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding, version 1: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def verify_envelope(
    envelope: Envelope, payload_type: str, pinned: frozenset[str], at: datetime, subject: str | None
) -> bytes:
    """The payload's bytes, once it is certain who signed them.

    The chain must end in a `pinned` key (base64 raw Ed25519), every certificate be valid at `at`, every issuer be
    entitled to certify what it certified, the leaf be `subject` (None accepts any), and the signature be over this
    payload and type. Raises Terminal(SIGNATURE_REFUSED) saying which failed.
    """
    if at.utcoffset() is None:
        raise _refused("the time of verification has no time zone")
    if envelope.payload_type != payload_type:
        raise _refused(f"the statement is not of the type {payload_type}")
    if not 1 <= len(envelope.chain) <= 2:
        raise _refused(f"a chain has one or two certificates, not {len(envelope.chain)}")
    leaf, root = envelope.chain[0], envelope.chain[-1]
    if subject is not None and leaf.subject != subject:
        raise _refused(f"the signer is {leaf.subject!r}, not {subject!r}")
    if root.issuer_key not in pinned:
        raise _refused("the chain does not end in a pinned key")
    if _rank(root.issuer)[1] is not _Rank.POOL:
        raise _refused("the chain does not end in a pool")
    for position, certificate in enumerate(envelope.chain):
        _check_certificate(certificate, at)
        if position and (certificate.subject, certificate.subject_key) != (
            envelope.chain[position - 1].issuer,
            envelope.chain[position - 1].issuer_key,
        ):
            raise _refused("the chain is broken: an issuer is not the next certificate's subject")
    body = _decode(envelope.payload, "payload")
    _check_signature(leaf.subject_key, envelope.signature, pae(payload_type, body), "statement")
    return body


def _check_certificate(certificate: Certificate, at: datetime) -> None:
    if certificate.not_before.utcoffset() is None or certificate.not_after.utcoffset() is None:
        raise _refused(f"the certificate of {certificate.subject!r} has times without a zone")
    if not certificate.not_before <= at < certificate.not_after:
        raise _refused(f"the certificate of {certificate.subject!r} was not valid at {at.isoformat()}")
    _may_issue(certificate.issuer, certificate.subject)
    _check_signature(certificate.issuer_key, certificate.signature, _certificate_bytes(certificate), "certificate")


def _may_issue(issuer: str, subject: str) -> None:
    issuer_tenant, issuer_rank = _rank(issuer)
    tenant, rank = _rank(subject)
    if tenant != issuer_tenant:
        raise _refused(f"{issuer!r} cannot certify {subject!r}, of another tenant")
    entitled = {_Rank.POOL: (_Rank.WORKER,), _Rank.WORKER: (_Rank.LEAF,), _Rank.LEAF: ()}[issuer_rank]
    if rank not in entitled:
        raise _refused(f"{issuer!r} cannot certify {subject!r}")


def _rank(subject: str) -> tuple[str, _Rank]:
    """The tenant of a SPIFFE id, and what it is: exactly `pool/<name>`, exactly `worker/<name>`, or a leaf."""
    match = _SUBJECT.fullmatch(subject)
    if match is None or any(part in ("", ".", "..") for part in match[2].split("/")):
        raise _refused(f"{subject[:200]!r} is not a SPIFFE id")
    parts = match[2].split("/")
    if len(parts) == 2 and parts[0] in ("pool", "worker"):
        return match[1], _Rank.POOL if parts[0] == "pool" else _Rank.WORKER
    return match[1], _Rank.LEAF


def _certificate_bytes(certificate: Certificate) -> bytes:
    return _CERTIFICATE_DOMAIN + canonical(certificate.model_dump(mode="json", exclude={"signature"}))


def _check_signature(key: str, signature: str, message: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(_decode(key, "key")).verify(_decode(signature, "signature"), message)
    except (InvalidSignature, ValueError):
        raise _refused(f"the {what}'s signature does not verify") from None


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refused(f"the {what} is not base64") from None
    if _encode(raw) != text:
        raise _refused(f"the {what} is not canonical base64")
    return raw


def _refused(why: str) -> Terminal:
    return Terminal(ErrorCode.SIGNATURE_REFUSED, f"refused: {why}")
