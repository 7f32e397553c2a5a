"""Contract: `verify` names the person whose SSH key signed exactly these bytes for exactly this purpose, when the list
of approvers allows that key at that time. Everything else is Terminal(SIGNATURE_REFUSED) or Terminal(NOT_AN_APPROVER),
whatever the text; ssh-keygen is the reference.
"""

import base64
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.model.access import Approvers
from oncall.model.errors import ErrorCode, Terminal
from oncall.trust.ssh import MAX_SIGNATURE_BYTES, verify
from tests.trust.ssh_keys import SshKey, approvers, ssh_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NAMESPACE = "oncall-decision"
MESSAGE = b'{"approved":true}'


def refusal(signature: str, people: Approvers, message: bytes = MESSAGE, at: datetime = NOW) -> Terminal:
    with pytest.raises(Terminal) as caught:
        verify(signature, message, NAMESPACE, people, at)
    assert caught.value.code in (ErrorCode.SIGNATURE_REFUSED, ErrorCode.NOT_AN_APPROVER)
    return caught.value


@pytest.mark.parametrize(("kind", "bits"), [("ed25519", 0), ("rsa", 2048), ("rsa", 3072)])
def test_a_real_signature_names_its_person(kind: str, bits: int) -> None:
    key = ssh_key("alice", kind, bits)
    signer = verify(key.sign(MESSAGE, NAMESPACE), MESSAGE, NAMESPACE, approvers(("alice", key)), NOW)
    assert (signer.person, signer.principal, signer.fingerprint) == ("alice", "alice", key.fingerprint)


def test_rsa_with_sha256_is_accepted_too() -> None:
    key = ssh_key("alice", "rsa", 2048)
    done = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-q", "-O", "hashalg=sha256", "-f", str(key.path), "-n", NAMESPACE],
        input=MESSAGE,
        capture_output=True,
        check=True,
    )
    assert verify(done.stdout.decode(), MESSAGE, NAMESPACE, approvers(("alice", key)), NOW).person == "alice"


@pytest.mark.parametrize(("kind", "bits"), [("ecdsa", 256), ("rsa", 1024)])
def test_other_and_weak_keys_are_refused_by_name(kind: str, bits: int) -> None:
    key = ssh_key("alice", kind, bits)
    error = refusal(key.sign(MESSAGE, NAMESPACE), approvers(("alice", key)))
    assert error.code is ErrorCode.SIGNATURE_REFUSED
    assert ("ssh-ed25519 and ssh-rsa" if kind == "ecdsa" else "2048") in error.message


def test_other_bytes_namespace_or_key_are_refused() -> None:
    alice, mallory = ssh_key("alice"), ssh_key("mallory")
    people = approvers(("alice", alice))
    good = alice.sign(MESSAGE, NAMESPACE)
    assert refusal(good, people, MESSAGE + b" ").code is ErrorCode.SIGNATURE_REFUSED
    assert refusal(alice.sign(MESSAGE, "git"), people).code is ErrorCode.SIGNATURE_REFUSED
    assert refusal(mallory.sign(MESSAGE, NAMESPACE), people).code is ErrorCode.NOT_AN_APPROVER


def test_a_key_without_a_person_is_no_approver() -> None:
    key = ssh_key("alice")
    people = approvers(("alice", key)).model_copy(update={"people": {}})
    error = refusal(key.sign(MESSAGE, NAMESPACE), people)
    assert error.code is ErrorCode.NOT_AN_APPROVER
    assert key.fingerprint in error.message


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ('namespaces="oncall-decision"', True),
        ('namespaces="git,oncall-*"', True),
        ('namespaces="git"', False),
        ('namespaces="oncall-*,!oncall-decision"', False),
        ('valid-after="20261120Z"', True),
        ('valid-after="202611201201Z"', False),
        ('valid-before="20261120115959Z"', False),
        ('valid-before="20261121Z",namespaces="oncall-decision"', True),
        ("cert-authority", False),
    ],
)
def test_options_of_the_list_decide(options: str, allowed: bool) -> None:
    key = ssh_key("alice")
    people = approvers(("alice", key), options=options)
    signature = key.sign(MESSAGE, NAMESPACE)
    if allowed:
        assert verify(signature, MESSAGE, NAMESPACE, people, NOW).person == "alice"
    else:
        assert refusal(signature, people).code is ErrorCode.NOT_AN_APPROVER


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "alice ssh-ed25519",
        "alice ssh-ed25519 !!!",
        "alice ssh-rsa {ed25519}",
        'alice valid-after="20261120" ssh-ed25519 {ed25519}',
        'alice valid-after="20261320Z" ssh-ed25519 {ed25519}',
        'alice verify-required="yes" ssh-ed25519 {ed25519}',
        'alice namespaces="git",namespaces="*" ssh-ed25519 {ed25519}',
        "alice namespaces=oncall-decision ssh-ed25519 {ed25519}",
        '"alice ssh-ed25519 {ed25519}',
        ",alice ssh-ed25519 {ed25519}",
    ],
)
def test_a_list_that_cannot_be_read_approves_nothing(line: str) -> None:
    key = ssh_key("alice")
    people = approvers(("alice", key))
    broken = people.allowed_signers + line.replace("{ed25519}", key.public.split()[1]) + "\n"
    error = refusal(key.sign(MESSAGE, NAMESPACE), people.model_copy(update={"allowed_signers": broken}))
    assert error.code is ErrorCode.NOT_AN_APPROVER
    assert "line 2" in error.message


def test_patterns_as_principals_name_nobody() -> None:
    key = ssh_key("alice")
    assert "pattern" in refusal(key.sign(MESSAGE, NAMESPACE), approvers(("*", key))).message


def test_comments_blank_lines_and_a_second_line_of_the_same_key_are_fine() -> None:
    key = ssh_key("alice")
    text = f'# people\n\nalice namespaces="git" {key.public}\r\n"alice,a2" namespaces="oncall-*"\t{key.public} x y\n'
    people = Approvers(allowed_signers=text, people={key.fingerprint: "alice"})
    assert verify(key.sign(MESSAGE, NAMESPACE), MESSAGE, NAMESPACE, people, NOW).person == "alice"


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_survives(kind: str, data: st.DataObject) -> None:
    key = ssh_key("alice", kind, 2048 if kind == "rsa" else 0)
    good = _signature(key).encode()
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    flipped = bytearray(good)
    flipped[bit // 8] ^= 1 << bit % 8
    refusal(bytes(flipped).decode("latin-1"), approvers(("alice", key)))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=400),
        st.binary(max_size=400).map(lambda raw: _armor(raw)),
        st.binary(max_size=400).map(lambda raw: _armor(b"SSHSIG\0\0\0\1" + raw)),
    )
)
def test_any_text_is_refused_and_nothing_else_is_raised(text: str) -> None:
    refusal(text, approvers(("alice", ssh_key("alice"))))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_hostile_fields_around_a_real_key_are_refused(data: st.DataObject) -> None:
    key = ssh_key("alice", data.draw(st.sampled_from(["ed25519", "rsa"])))
    blob = base64.b64decode(key.public.split()[1])
    hash_name = data.draw(st.sampled_from([b"sha512", b"sha256", b"md5", b"shake_128", b"", b"\xff"]))
    inner = data.draw(
        st.one_of(
            st.binary(max_size=80),
            st.tuples(st.sampled_from([b"ssh-ed25519", b"rsa-sha2-512", b"ssh-rsa", b""]), st.binary(max_size=400)).map(
                lambda pair: _string(pair[0]) + _string(pair[1])
            ),
        )
    )
    namespace, reserved = NAMESPACE.encode(), data.draw(st.sampled_from([b"", b"x"]))
    raw = b"SSHSIG\0\0\0\1" + b"".join(_string(part) for part in (blob, namespace, reserved, hash_name, inner))
    error = refusal(_armor(raw), approvers(("alice", key)))
    assert error.code is ErrorCode.SIGNATURE_REFUSED


def test_size_is_bounded_before_anything_is_parsed() -> None:
    assert str(MAX_SIGNATURE_BYTES) in refusal("A" * (MAX_SIGNATURE_BYTES + 1), approvers()).message


def test_a_time_without_a_zone_is_refused() -> None:
    key = ssh_key("alice")
    refusal(key.sign(MESSAGE, NAMESPACE), approvers(("alice", key)), at=datetime(2026, 11, 20, 12))


def test_ssh_keygen_agrees_on_validity(tmp_path: Path) -> None:
    key = ssh_key("alice")
    signature = tmp_path / "sig"
    signature.write_text(key.sign(MESSAGE, NAMESPACE))
    for options, at in [
        ('valid-before="20261120Z"', NOW),
        ('valid-before="20261120Z"', NOW - timedelta(days=1)),
        ('namespaces="git"', NOW),
        ('namespaces="oncall-*"', NOW),
    ]:
        people = approvers(("alice", key), options=options)
        (tmp_path / "signers").write_text(people.allowed_signers)
        theirs = subprocess.run(
            [
                *("ssh-keygen", "-Y", "verify", "-I", "alice", "-n", NAMESPACE, "-s", str(signature)),
                *("-f", str(tmp_path / "signers"), "-O", f"verify-time={at:%Y%m%d%H%M%S}Z"),
            ],
            input=MESSAGE,
            capture_output=True,
        )
        try:
            verify(signature.read_text(), MESSAGE, NAMESPACE, people, at)
            ours = 0
        except Terminal:
            ours = 1
        assert (theirs.returncode == 0) == (ours == 0), (options, at, theirs.stderr)


_signatures: dict[str, str] = {}


def _signature(key: SshKey) -> str:
    if key.fingerprint not in _signatures:
        _signatures[key.fingerprint] = key.sign(MESSAGE, NAMESPACE)
    return _signatures[key.fingerprint]


def _string(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def _armor(raw: bytes) -> str:
    return f"-----BEGIN SSH SIGNATURE-----\n{base64.b64encode(raw).decode()}\n-----END SSH SIGNATURE-----\n"
