"""Signed statements in blob storage: believed only if a pinned pool vouches for their signer."""

from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from oncall.blobs.store import BlobStore
from oncall.model.envelope import Envelope
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.names import worker_uri
from oncall.model.steps import Synthesis
from oncall.trust.identity import Identity, verify_envelope

FINDING_TYPE = "application/vnd.oncall.finding+json"
SYNTHESIS_TYPE = "application/vnd.oncall.synthesis+json"

Statement = TypeVar("Statement", bound=BaseModel)


class Evidence:
    """The envelopes of this host's pools."""

    def __init__(self, blobs: BlobStore, pinned: frozenset[str]) -> None:
        self._blobs = blobs
        self._pinned = pinned

    def store(self, signer: Identity, payload_type: str, statement: BaseModel) -> tuple[str, str]:
        """Sign and store a statement: its blob's digest, and the signature (base64)."""
        envelope = signer.sign(payload_type, statement)
        return self._blobs.put(envelope.model_dump_json().encode()), envelope.signature

    def synthesis(self, digest: str, tenant: str, incident_id: str) -> Synthesis:
        """The synthesis of that digest, if a worker signed it, and for this incident.

        Raises Terminal: BLOB_MISSING, BLOB_CORRUPT, SIGNATURE_REFUSED.
        """
        synthesis = self.load(digest, SYNTHESIS_TYPE, Synthesis, None)
        signer = Envelope.model_validate_json(self._blobs.get(digest)).chain[0].subject
        if not signer.startswith(worker_uri(tenant, "")) or synthesis.incident_id != incident_id:
            raise Terminal(ErrorCode.SIGNATURE_REFUSED, f"blob {digest} is not a worker's synthesis of this incident")
        return synthesis

    def load(self, digest: str, payload_type: str, model: type[Statement], subject: str | None) -> Statement:
        """The statement of that digest, signed by `subject` (None: by anyone a pinned pool vouches for).

        Raises Terminal: BLOB_MISSING, BLOB_CORRUPT, SIGNATURE_REFUSED.
        """
        try:
            envelope = Envelope.model_validate_json(self._blobs.get(digest))
            payload = verify_envelope(envelope, payload_type, self._pinned, datetime.now(UTC), subject)
            return model.model_validate_json(payload)
        except ValidationError:
            raise Terminal(ErrorCode.BLOB_CORRUPT, f"blob {digest} is not the statement it should be") from None
