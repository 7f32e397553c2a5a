"""All findings into one diagnosis; those whose signature does not verify do not count."""

import asyncio
from datetime import UTC, datetime

from oncall.analyst.synthesize import synthesize
from pydantic import ValidationError

from activities.implements import implements
from activities.investigate import FINDING_TYPE
from activities.sources import Sources
from oncall.blobs.store import BlobStore
from oncall.model.envelope import Envelope
from oncall.model.errors import OncallError
from oncall.model.finding import Finding, FindingRef
from oncall.model.steps import SYNTHESIZE, Synthesis, SynthesizeIn
from oncall.trust.identity import Identity, verify_envelope

SYNTHESIS_TYPE = "application/vnd.oncall.synthesis+json"


class Synthesize:
    """Reads findings back, checks who signed them, and concludes."""

    def __init__(self, blobs: BlobStore, worker: Identity, pinned: frozenset[str], sources: Sources) -> None:
        self._blobs = blobs
        self._worker = worker
        self._pinned = pinned
        self._sources = sources

    @implements(SYNTHESIZE)
    async def synthesize(self, task: SynthesizeIn) -> Synthesis:
        """The diagnosis and the actions that follow from what was observed, signed by this worker."""
        topology = await self._sources.telemetry(task.recording).topology()
        findings, unverified = await asyncio.to_thread(self._verified, task.findings)
        coverage = task.coverage.model_copy(
            update={
                "completed": task.coverage.completed - unverified,
                "failed": task.coverage.failed + unverified,
            }
        )
        analysis = await asyncio.to_thread(synthesize, findings, topology, coverage, task.quorum)
        synthesis = Synthesis(
            diagnosis=analysis.diagnosis,
            actions=analysis.actions,
            observations=analysis.observations,
            evidence_digest="",
            unverified=unverified,
        )
        envelope = self._worker.sign(SYNTHESIS_TYPE, synthesis)
        digest = await asyncio.to_thread(self._blobs.put, envelope.model_dump_json().encode())
        return synthesis.model_copy(update={"evidence_digest": digest})

    def _verified(self, stubs: tuple[FindingRef, ...]) -> tuple[list[Finding], int]:
        now = datetime.now(UTC)
        findings: list[Finding] = []
        for stub in stubs:
            try:
                envelope = Envelope.model_validate_json(self._blobs.get(stub.digest))
                payload = verify_envelope(envelope, FINDING_TYPE, self._pinned, now, stub.agent)
                finding = Finding.model_validate_json(payload)
            except (OncallError, ValidationError):
                continue
            # The stub came through Temporal: only what the agent itself signed about itself is believed.
            if finding.agent == stub.agent:
                findings.append(finding)
        return findings, len(stubs) - len(findings)
