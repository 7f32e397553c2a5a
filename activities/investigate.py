"""One agent: a fresh key, its specialist's tools, one signed finding in blob storage."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.credentials import Held
from activities.evidence import FINDING_TYPE, Evidence
from activities.implements import implements
from activities.sources import Sources
from oncall.access.read import ReadBroker
from oncall.analyst.examine import examine
from oncall.config import Config
from oncall.model.finding import FindingRef
from oncall.model.names import agent_uri, attempt_of_wave
from oncall.model.steps import INVESTIGATE, InvestigateIn
from oncall.tools.toolkit import Toolkit
from oncall.trust.identity import Identity

CERTIFICATE_LIFETIME = timedelta(hours=12)
"""The key lives for one attempt; its certificate has to outlive every wait until the finding is read back."""

ANALYSTS_AT_ONCE = 12
"""Agents that probe and compute at the same time: more share one event loop, and a probe's deadline would then measure
the other agents' arithmetic instead of the system it asks."""


class Investigate:
    """Runs agents of this worker."""

    def __init__(
        self,
        config: Config,
        broker: ReadBroker,
        evidence: Evidence,
        worker: Callable[[], Identity],
        sources: Sources,
    ) -> None:
        self._config = config
        self._broker = broker
        self._evidence = evidence
        self._worker = worker
        self._sources = sources
        self._turn = asyncio.Semaphore(ANALYSTS_AT_ONCE)

    @implements(INVESTIGATE)
    async def investigate(self, task: InvestigateIn) -> FindingRef:
        """The stub of one agent's finding; the finding itself is an envelope signed by the agent's own key."""
        agent = task.agent
        attempt = attempt_of_wave(task.wave, activity.info().attempt)
        uri = agent_uri(task.tenant, agent.region, task.incident_id, agent.specialist, agent.service, attempt)
        now = datetime.now(UTC)
        identity = self._worker().issue(uri, now - timedelta(minutes=1), now + CERTIFICATE_LIFETIME)
        toolkit = Toolkit(
            agent=agent,
            uri=uri,
            as_of=task.as_of,
            alert_at=task.alert_at,
            lookback_s=self._config.incident.lookback_s,
            telemetry=self._sources.telemetry(task.recording),
            instances_url=self._config.sources.instances,
            references=self._config.references,
            credentials=Held(self._broker, task.grant_digest, uri, task.incident_id) if task.grant_digest else None,
        )
        async with self._turn:
            finding = await examine(toolkit)
        digest, signature = await asyncio.to_thread(self._evidence.store, identity, FINDING_TYPE, finding)
        return FindingRef(
            agent=uri,
            specialist=agent.specialist,
            service=agent.service,
            region=agent.region,
            health=finding.health,
            score=finding.score,
            digest=digest,
            signature=signature,
            secret_requests=self._broker.take_secret_requests(),
        )
