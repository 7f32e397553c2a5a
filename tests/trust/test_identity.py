"""Contract: an envelope verifies exactly when a pinned pool certified a worker, which certified the agent (or the
worker itself signed), each within its time and its tenant, and nothing was changed on the way. An agent certifies
nobody.
"""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from oncall.model.agent import Agent, Specialist
from oncall.model.envelope import Certificate, Envelope
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.names import agent_uri, pool_uri, worker_uri
from oncall.trust.canonical import canonical
from oncall.trust.identity import Identity, pae, verify_envelope

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TYPE = "application/vnd.oncall.finding+json"
PAYLOAD = Agent(specialist=Specialist.CACHE, service="user", region="us-east-1")
AGENT = agent_uri("oncall", "us-east-1", "inc-1", "cache", "user", 1)

POOL = Identity.pool(pool_uri("oncall", "main"))
WORKER = POOL.issue(worker_uri("oncall", "w1"), NOW - HOUR, NOW + HOUR)
LEAF = WORKER.issue(AGENT, NOW - HOUR, NOW + HOUR)
PINNED = frozenset([POOL.public_key])


def check(envelope: Envelope, subject: str | None = AGENT, at: datetime = NOW) -> bytes:
    return verify_envelope(envelope, TYPE, PINNED, at, subject)


def refused(envelope: Envelope, subject: str | None = AGENT, at: datetime = NOW) -> str:
    with pytest.raises(Terminal) as caught:
        check(envelope, subject, at)
    assert caught.value.code is ErrorCode.SIGNATURE_REFUSED
    return caught.value.message


def test_an_agents_and_a_workers_statements_verify() -> None:
    assert json.loads(check(LEAF.sign(TYPE, PAYLOAD))) == PAYLOAD.model_dump(mode="json")
    assert check(WORKER.sign(TYPE, PAYLOAD), WORKER.subject)
    assert check(LEAF.sign(TYPE, PAYLOAD), None)


def test_pae_is_the_protocols_own_example() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_type_subject_time_and_pin_must_match() -> None:
    good = LEAF.sign(TYPE, PAYLOAD)
    assert "type" in refused(good.model_copy(update={"payload_type": "other"}))
    assert "not" in refused(good, agent_uri("oncall", "us-east-1", "inc-1", "cache", "user", 2))
    assert "valid" in refused(good, at=NOW + HOUR)
    assert "valid" in refused(good, at=NOW - 2 * HOUR)
    with pytest.raises(Terminal, match="pinned"):
        verify_envelope(good, TYPE, frozenset(), NOW, AGENT)


def test_an_agent_certifies_nobody() -> None:
    with pytest.raises(Terminal):
        LEAF.issue(AGENT, NOW - HOUR, NOW + HOUR)
    # Nor when it signs the certificate with its own key, behind our back.
    rogue = Identity(WORKER.subject, LEAF.chain, LEAF._key).issue(AGENT, NOW - HOUR, NOW + HOUR)
    assert "certificates" in refused(rogue.sign(TYPE, PAYLOAD))
    shortened = Identity(rogue.subject, (rogue.chain[0], LEAF.chain[1]), rogue._key)
    assert "broken" in refused(shortened.sign(TYPE, PAYLOAD))


def test_an_agent_certified_by_the_pool_itself_is_refused() -> None:
    with pytest.raises(Terminal):
        POOL.issue(AGENT, NOW - HOUR, NOW + HOUR)


def forged(signer: Identity, issuer: str, subject: str, chain: tuple[Certificate, ...]) -> Envelope:
    """A statement under a certificate that `signer` really signed, whatever our own code lets it issue."""
    key = Ed25519PrivateKey.generate()
    certificate = Certificate(
        subject=subject,
        subject_key=base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        issuer=issuer,
        issuer_key=signer.public_key,
        not_before=NOW - HOUR,
        not_after=NOW + HOUR,
    )
    body = canonical(certificate.model_dump(mode="json", exclude={"signature"}))
    signature = base64.b64encode(signer._key.sign(b"oncall.certificate/1\0" + body)).decode()
    signed = certificate.model_copy(update={"signature": signature})
    return Identity(subject, (signed, *chain), key).sign(TYPE, PAYLOAD)


@pytest.mark.parametrize(
    ("signer", "issuer", "subject"),
    [
        (WORKER, WORKER.subject, agent_uri("other", "r", "i", "cache", "s", 1)),
        (WORKER, WORKER.subject, worker_uri("oncall", "w2")),
        (WORKER, WORKER.subject, POOL.subject),
        (WORKER, WORKER.subject, "not a SPIFFE id"),
        (POOL, POOL.subject, AGENT),
        (POOL, POOL.subject, POOL.subject),
        (POOL, POOL.subject, worker_uri("other", "w1")),
        (POOL, WORKER.subject, AGENT),
        (POOL, AGENT, AGENT),
    ],
)
def test_a_real_signature_under_a_title_it_cannot_give_is_refused(signer: Identity, issuer: str, subject: str) -> None:
    refused(forged(signer, issuer, subject, signer.chain), None)


def test_the_forge_of_these_tests_forges_well() -> None:
    assert check(forged(WORKER, WORKER.subject, AGENT, WORKER.chain))
    assert check(forged(POOL, POOL.subject, WORKER.subject, ()), None)


def test_another_tenants_worker_is_refused() -> None:
    with pytest.raises(Terminal, match="tenant"):
        POOL.issue(worker_uri("other", "w1"), NOW - HOUR, NOW + HOUR)
    with pytest.raises(Terminal, match="tenant"):
        WORKER.issue(agent_uri("other", "r", "i", "cache", "s", 1), NOW - HOUR, NOW + HOUR)


def test_another_pools_chain_is_refused() -> None:
    other = (
        Identity.pool(POOL.subject).issue(WORKER.subject, NOW - HOUR, NOW + HOUR).issue(AGENT, NOW - HOUR, NOW + HOUR)
    )
    assert "pinned" in refused(other.sign(TYPE, PAYLOAD))
    grafted = Identity(AGENT, (other.chain[0], WORKER.chain[0]), other._key)
    assert "broken" in refused(grafted.sign(TYPE, PAYLOAD))


def test_a_certificate_cannot_be_edited() -> None:
    good = LEAF.sign(TYPE, PAYLOAD)
    later: Certificate = good.chain[0].model_copy(update={"not_after": NOW + 9 * HOUR})
    assert "certificate's signature" in refused(good.model_copy(update={"chain": (later, good.chain[1])}))


def test_a_pool_signs_no_statements() -> None:
    with pytest.raises(Terminal):
        POOL.sign(TYPE, PAYLOAD)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_survives(data: st.DataObject) -> None:
    good = LEAF.sign(TYPE, PAYLOAD)
    name = data.draw(st.sampled_from(["payload", "signature"]))
    raw = bytearray(getattr(good, name).encode())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    refused(good.model_copy(update={name: raw.decode("latin-1")}))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["subject", "issuer", "subject_key", "issuer_key", "signature"]))
def test_hostile_certificates_are_refused(text: str, name: str) -> None:
    good = LEAF.sign(TYPE, PAYLOAD)
    for position in (0, 1):
        chain = list(good.chain)
        chain[position] = chain[position].model_copy(update={name: text})
        refused(good.model_copy(update={"chain": tuple(chain)}), None)


def test_stored_identities_come_back_and_garbage_does_not() -> None:
    again = Identity.from_bytes(LEAF.to_bytes())
    assert (again.subject, again.chain, again.public_key) == (LEAF.subject, LEAF.chain, LEAF.public_key)
    assert check(again.sign(TYPE, PAYLOAD))
    swapped = LEAF.to_bytes().replace(json.loads(LEAF.to_bytes())["private_key"].encode(), base64.b64encode(bytes(32)))
    for garbage in (b"", b"{}", b"[1]", b"\xff", b"[" * 100_000, LEAF.to_bytes()[:-5], swapped):
        with pytest.raises(Terminal) as caught:
            Identity.from_bytes(garbage)
        assert caught.value.code is ErrorCode.BAD_CONFIG


def test_the_private_key_is_never_printed() -> None:
    secret = json.loads(LEAF.to_bytes())["private_key"]
    assert secret not in repr(LEAF) + str(LEAF) + repr(vars(LEAF))
