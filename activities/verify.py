"""Measures recovery: the figures of the incident against the figures of now, held for long enough to be believed."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from activities.credentials import Held
from activities.evidence import Evidence
from activities.heartbeat import heartbeating
from activities.implements import implements
from activities.sources import Sources
from oncall.access.read import ReadBroker
from oncall.analyst.recovery import recovery_checks
from oncall.analyst.runaways import long_running
from oncall.config import Config
from oncall.model.agent import Agent, Specialist
from oncall.model.errors import OncallError
from oncall.model.names import agent_uri
from oncall.model.observation import Observation
from oncall.model.steps import VERIFY, VerifyIn
from oncall.model.verification import Verification
from oncall.tools.database import query_slow_queries
from oncall.tools.toolkit import Toolkit

HOLD_S = 8.0
"""Recovery counts once it has been measured over this long: an outage that only paused relapses within 3 s."""

PATIENCE_S = 60.0
POLL_S = 1.0


class Verify:
    """Reads the estate until it has recovered, or patience ends."""

    def __init__(self, config: Config, broker: ReadBroker, sources: Sources, evidence: Evidence) -> None:
        self._config = config
        self._broker = broker
        self._sources = sources
        self._evidence = evidence

    @implements(VERIFY)
    async def verify(self, task: VerifyIn) -> Verification:
        """The last measurement taken: a recovered one, or the one that ended the wait."""
        telemetry = self._sources.telemetry(None)
        topology = await telemetry.topology()
        lookback = timedelta(seconds=self._config.incident.lookback_s)
        before = await telemetry.window(task.incident_at - lookback, task.incident_at)
        synthesis = await asyncio.to_thread(
            self._evidence.synthesis, task.evidence_digest, task.tenant, task.incident_id
        )
        runaways_before = _runaways(synthesis.observations)
        started, deadline = datetime.now(UTC), time.monotonic() + PATIENCE_S
        well_since: datetime | None = None
        async with heartbeating():
            while True:
                await asyncio.sleep(POLL_S)
                now = datetime.now(UTC)
                after = await telemetry.window(max(started, now - timedelta(seconds=HOLD_S)), now)
                runaways_after = await self._look_at_database(task, now)
                verification = recovery_checks(
                    before, after, topology, task.root_cause, runaways_before, runaways_after
                )
                well_since = (well_since or now) if verification.recovered else None
                if well_since is not None and (now - well_since).total_seconds() >= HOLD_S:
                    return verification
                if time.monotonic() > deadline:
                    # Well for too short a time is not recovered.
                    return verification.model_copy(update={"recovered": False})

    async def _look_at_database(self, task: VerifyIn, now: datetime) -> int | None:
        """Executions that run away right now; None when the database cannot be asked."""
        cause = task.root_cause
        if cause.specialist is not Specialist.DATABASE:
            return None
        agent = Agent(specialist=Specialist.DATABASE, service=cause.service, region=cause.region)
        uri = agent_uri(task.tenant, cause.region, task.incident_id, "verify", cause.service, 1)
        toolkit = Toolkit(
            agent=agent,
            uri=uri,
            as_of=now,
            lookback_s=self._config.incident.lookback_s,
            telemetry=self._sources.telemetry(None),
            instances_url=self._config.sources.instances,
            references=self._config.references,
            credentials=Held(self._broker, task.grant_digest, uri),
        )
        try:
            return _runaways([await query_slow_queries(toolkit)])
        except OncallError:
            return None


def _runaways(observations: "tuple[Observation, ...] | list[Observation]") -> int | None:
    looks = [observation.value for observation in observations if observation.tool == "query_slow_queries"]
    return long_running(looks) if looks else None
