"""Whose SSH signature is this? Pure verification of armored SSHSIG signatures against a list of approvers.

Format: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig. The PyPI package `sshsig` does the
cryptography; it ignores principals, namespaces, validity and revocation, accepts any hash Python knows, and reads
loosely. All of that is decided here, before it is asked.
"""

import base64
import binascii
import hashlib
import io
from datetime import datetime

from sshsig.binary_io import SshReader, SshWriter
from sshsig.ssh_public_key import PublicKey
from sshsig.sshsig import SshsigSignature, SshsigWrapper

from oncall.model.access import Approvers
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.frozen import Frozen
from oncall.trust.allowed_signers import AllowedSigner, parse_allowed_signers

MAX_SIGNATURE_BYTES = 16 * 1024
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16384

_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"
SUPPORTED = ("ssh-ed25519", "ssh-rsa")
"""Key types whose signatures count."""
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


class Signer(Frozen):
    """Who signed: the person, the principal of the list's line, and the key's `SHA256:…` fingerprint."""

    person: str
    principal: str
    fingerprint: str


def fingerprint(key: bytes) -> str:
    """`SHA256:<base64>` of a public key in SSH wire encoding, as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def verify(signature: str, message: bytes, namespace: str, approvers: Approvers, at: datetime) -> Signer:
    """The person whose SSH key made `signature` over `message` in `namespace`, allowed to at the time `at`.

    `signature` may be any text. Raises Terminal(SIGNATURE_REFUSED) when it is not a good signature (of Ed25519 or RSA,
    at most 16 KiB) over the message, and Terminal(NOT_AN_APPROVER) when its key may not decide: not in the list, not
    for this namespace, not at this time, or nobody's. The message says which and why.
    """
    if at.utcoffset() is None:
        raise _refused("the time of signing has no time zone")
    parsed = _parse(signature)
    if parsed.namespace != namespace.encode():
        raise _refused(f"it was made for another purpose than {namespace}")
    key_type = _key_type(parsed.public_key)
    if key_type not in SUPPORTED:
        raise _refused("only ssh-ed25519 and ssh-rsa keys are supported")
    # The list comes before the cryptography, so that a stranger's key (of absurd size, say) costs nothing.
    line = _allowed(parsed.public_key, namespace, approvers, at)
    _check(parsed, message)
    print_ = fingerprint(parsed.public_key)
    person = approvers.people.get(print_, "")
    if not person:
        raise Terminal(ErrorCode.NOT_AN_APPROVER, f"the key {print_} belongs to no person in the approvers' map")
    return Signer(person=person, principal=line.principals[0], fingerprint=print_)


def _parse(signature: str) -> SshsigSignature:
    """The one reading of an armored signature: any other bytes that a lenient parser would take alike are refused."""
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise _refused(f"it is longer than {MAX_SIGNATURE_BYTES} characters")
    lines = signature.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise _refused("it is not an armored SSH signature")
    body = "".join(lines[1:-1])
    try:
        raw = base64.b64decode(body, validate=True)
        parsed = SshsigSignature(raw)
    except NotImplementedError:
        raise _refused("its format version is not supported") from None
    except (binascii.Error, ValueError):
        raise _refused("it is not an armored SSH signature") from None
    if base64.b64encode(raw).decode() != body or bytes(parsed) != raw:
        raise _refused("it is not in the one form that OpenSSH writes")
    if parsed.hash_algo not in _HASHES:
        raise _refused("its hash is neither sha256 nor sha512")
    return parsed


def _key_type(key: bytes) -> str:
    try:
        return SshReader(key).read_string().decode("ascii")
    except ValueError:
        raise _refused("its public key cannot be read") from None


def _allowed(key: bytes, namespace: str, approvers: Approvers, at: datetime) -> AllowedSigner:
    refusal = "is not in the list of allowed signers"
    for line in parse_allowed_signers(approvers.allowed_signers):
        if line.key == key:
            why = line.refusal(namespace, at)
            if why is None:
                return line
            refusal = f"is refused by allowed_signers line {line.line}, which {why}"
    raise Terminal(ErrorCode.NOT_AN_APPROVER, f"the key {fingerprint(key)} {refusal}")


def _check(parsed: SshsigSignature, message: bytes) -> None:
    signed = SshsigWrapper(
        namespace=parsed.namespace,
        hash_algo=parsed.hash_algo,
        hash=_HASHES[parsed.hash_algo](message).digest(),
    ).to_bytes()
    algorithm, value = _pair(parsed.signature)
    try:
        key = PublicKey.from_ssh_encoding(parsed.public_key)
        bits = getattr(getattr(key, "_impl", None), "key_size", None)
        if bits is not None and not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            raise _refused(f"an RSA key needs {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
        wanted = (b"ssh-ed25519",) if key.algo_name == "ssh-ed25519" else (b"rsa-sha2-512", b"rsa-sha2-256")
        if algorithm not in wanted or not value:
            raise _refused("its algorithm does not belong to its key")
        failure = key.do_verify(parsed.signature, signed)
    except (ValueError, TypeError, NotImplementedError, OverflowError, AssertionError):
        raise _refused("its key or value cannot be read") from None
    if failure is not None:
        raise _refused("it is not over these bytes")


def _pair(blob: bytes) -> tuple[bytes, bytes]:
    try:
        reader = SshReader(blob)
        algorithm, value = reader.read_string(), reader.read_string()
    except ValueError:
        raise _refused("its value cannot be read") from None
    writer = SshWriter(out := io.BytesIO())
    writer.write_string(algorithm)
    writer.write_string(value)
    if out.getvalue() != blob:
        raise _refused("its value carries more than a signature")
    return algorithm, value


def _refused(why: str) -> Terminal:
    return Terminal(ErrorCode.SIGNATURE_REFUSED, f"the signature is refused: {why}")
