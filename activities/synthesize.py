"""All findings into one diagnosis; those whose signature does not verify do not count."""

import asyncio
from collections.abc import Callable

from activities.evidence import FINDING_TYPE, SYNTHESIS_TYPE, Evidence
from activities.implements import implements
from activities.sources import Sources
from oncall.analyst.synthesize import synthesize
from oncall.config import References
from oncall.model.errors import OncallError
from oncall.model.finding import Finding, FindingRef
from oncall.model.steps import SYNTHESIZE, Synthesis, SynthesizeIn
from oncall.trust.identity import Identity


class Synthesize:
    """Reads findings back, checks who signed them, and concludes."""

    def __init__(
        self, evidence: Evidence, worker: Callable[[], Identity], sources: Sources, references: References
    ) -> None:
        self._evidence = evidence
        self._worker = worker
        self._sources = sources
        self._references = references

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
        analysis = await asyncio.to_thread(synthesize, findings, topology, coverage, task.quorum, self._references)
        synthesis = Synthesis(
            diagnosis=analysis.diagnosis,
            actions=analysis.actions,
            observations=analysis.observations,
            evidence_digest="",
            unverified=unverified,
        )
        digest, _ = await asyncio.to_thread(self._evidence.store, self._worker(), SYNTHESIS_TYPE, synthesis)
        return synthesis.model_copy(update={"evidence_digest": digest})

    def _verified(self, stubs: tuple[FindingRef, ...]) -> tuple[list[Finding], int]:
        findings: list[Finding] = []
        for stub in stubs:
            try:
                finding = self._evidence.load(stub.digest, FINDING_TYPE, Finding, stub.agent)
            except OncallError:
                continue
            # The stub came through Temporal: only what the agent itself signed about itself is believed.
            if finding.agent == stub.agent:
                findings.append(finding)
        return findings, len(stubs) - len(findings)
