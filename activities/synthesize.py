"""All findings into one diagnosis; those whose signature does not verify do not count."""

import asyncio
from collections.abc import Callable

from activities.evidence import FINDING_TYPE, SYNTHESIS_TYPE, Evidence
from activities.implements import implements
from activities.sources import Sources
from oncall.analyst.recovery import symptoms
from oncall.analyst.synthesize import synthesize
from oncall.config import Config
from oncall.model.errors import OncallError
from oncall.model.finding import Finding
from oncall.model.names import agent_uri, attempts_of
from oncall.model.steps import SYNTHESIZE, Synthesis, SynthesizeIn
from oncall.model.symptom import Symptom
from oncall.rules.coverage import discount
from oncall.tools.toolkit import window_start
from oncall.trust.identity import Identity


class Synthesize:
    """Reads findings back, checks who signed them, and concludes."""

    def __init__(self, config: Config, evidence: Evidence, worker: Callable[[], Identity], sources: Sources) -> None:
        self._config = config
        self._evidence = evidence
        self._worker = worker
        self._sources = sources

    @implements(SYNTHESIZE)
    async def synthesize(self, task: SynthesizeIn) -> Synthesis:
        """The diagnosis and the actions that follow from what was observed, signed by this worker."""
        telemetry = self._sources.telemetry(task.recording)
        topology = await telemetry.topology()
        findings = await asyncio.to_thread(self._verified, task)
        unverified = len(task.findings) - len(findings)
        coverage = discount(task.coverage, unverified)
        analysis = await asyncio.to_thread(
            synthesize, findings, topology, coverage, task.quorum, self._config.references
        )
        root = analysis.diagnosis.root_cause
        measured: tuple[Symptom, ...] = ()
        if root is not None and task.recording is None:
            # Measured now and signed: by the time of verification the telemetry of today may have been pruned.
            start = window_start(task.as_of, task.alert_at, self._config.incident.lookback_s)
            window = await telemetry.window(start, task.as_of)
            measured = await asyncio.to_thread(symptoms, window, topology, root)
        synthesis = Synthesis(
            incident_id=task.incident_id,
            diagnosis=analysis.diagnosis,
            actions=analysis.actions,
            observations=analysis.observations,
            symptoms=measured,
            evidence_digest="",
            unverified=unverified,
        )
        digest, _ = await asyncio.to_thread(self._evidence.store, self._worker(), SYNTHESIS_TYPE, synthesis)
        return synthesis.model_copy(update={"evidence_digest": digest})

    def _verified(self, task: SynthesizeIn) -> list[Finding]:
        """The findings that count: one per place, signed by an agent of this incident about its own place.

        The stubs came through Temporal, so nothing of them is believed but where to look.
        """
        found: dict[tuple[str, str, str], Finding] = {}
        for stub in task.findings:
            try:
                finding = self._evidence.load(stub.digest, FINDING_TYPE, Finding, stub.agent)
            except OncallError:
                continue
            place = (finding.region, finding.service, finding.specialist.value)
            own = agent_uri(task.tenant, finding.region, task.incident_id, finding.specialist, finding.service, 0)
            if finding.agent == stub.agent and attempts_of(stub.agent) == attempts_of(own) and place not in found:
                found[place] = finding
        return list(found.values())
