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
from oncall.model.errors import ErrorCode, OncallError
from oncall.model.names import agent_uri
from oncall.model.observation import Observation
from oncall.model.steps import VERIFY, Synthesis, VerifyIn
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
        synthesis = await asyncio.to_thread(
            self._evidence.synthesis, task.evidence_digest, task.tenant, task.incident_id
        )
        started = datetime.now(UTC)
        # Durations by the clock that nobody sets: a corrected wall clock must not shorten the hold.
        begun = time.monotonic()
        well_since: float | None = None
        async with heartbeating():
            while True:
                await asyncio.sleep(POLL_S)
                verification = await self._measure(task, synthesis, started)
                now = time.monotonic()
                well_since = (well_since or now) if verification.recovered else None
                if well_since is not None and now - well_since >= HOLD_S:
                    return verification
                if now - begun > PATIENCE_S:
                    # Well for too short a time is not recovered.
                    return verification.model_copy(update={"recovered": False})

    async def _measure(self, task: VerifyIn, synthesis: Synthesis, started: datetime) -> Verification:
        """One measurement; what could not be read is unknown for now, and named."""
        telemetry = self._sources.telemetry(None)
        now = datetime.now(UTC)
        blind: list[str] = []
        try:
            topology = await telemetry.topology()
            after = await telemetry.window(max(started, now - timedelta(seconds=HOLD_S)), now)
        except OncallError as error:
            if error.code is not ErrorCode.TELEMETRY_UNAVAILABLE:
                raise
            return Verification(recovered=False, improved=False, checks=(), blind=(error.message,))
        runaways_after = None
        if task.root_cause.specialist is Specialist.DATABASE:
            try:
                runaways_after = _runaways([await query_slow_queries(self._toolkit(task, now))])
            except OncallError as error:
                blind.append(error.message)
        verification = recovery_checks(
            synthesis.symptoms,
            after,
            topology,
            task.root_cause,
            _runaways(synthesis.observations),
            runaways_after,
        )
        return verification.model_copy(update={"blind": tuple(blind)})

    def _toolkit(self, task: VerifyIn, now: datetime) -> Toolkit:
        cause = task.root_cause
        agent = Agent(specialist=Specialist.DATABASE, service=cause.service, region=cause.region)
        uri = agent_uri(task.tenant, cause.region, task.incident_id, "verify", cause.service, 1)
        return Toolkit(
            agent=agent,
            uri=uri,
            as_of=now,
            alert_at=now,
            lookback_s=self._config.incident.lookback_s,
            telemetry=self._sources.telemetry(None),
            instances_url=self._config.sources.instances,
            references=self._config.references,
            credentials=Held(self._broker, task.grant_digest, uri, task.incident_id),
        )


def _runaways(observations: "tuple[Observation, ...] | list[Observation]") -> int | None:
    looks = [observation.value for observation in observations if observation.tool == "query_slow_queries"]
    return long_running(looks) if looks else None
