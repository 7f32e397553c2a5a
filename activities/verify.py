"""Measures recovery after a remedy: the figures of the incident against the figures of now."""

import asyncio
from datetime import UTC, datetime, timedelta

from activities.credentials import Held
from activities.evidence import Evidence
from activities.implements import implements
from activities.recovery import HOLD_S, until_held
from activities.sources import Sources
from oncall.access.read import ReadBroker
from oncall.analyst.recovery import recovery_checks
from oncall.analyst.runaways import long_running
from oncall.config import Config
from oncall.model.agent import Agent, Specialist
from oncall.model.errors import OncallError
from oncall.model.names import agent_uri
from oncall.model.observation import Observation
from oncall.model.steps import VERIFY, Synthesis, VerifyIn
from oncall.model.verification import Verification
from oncall.tools.database import query_slow_queries
from oncall.tools.toolkit import Toolkit

ATTEMPT_S = 15.0
"""How long one attempt waits for recovery to begin. How often it is tried again is the workflow's business."""


class Verify:
    """Reads the estate until it has recovered, or for as long as one attempt may."""

    def __init__(self, config: Config, broker: ReadBroker, sources: Sources, evidence: Evidence) -> None:
        self._config = config
        self._broker = broker
        self._sources = sources
        self._evidence = evidence

    @implements(VERIFY)
    async def verify(self, task: VerifyIn) -> Verification:
        """The last measurement: recovered and settled, or neither, and then looking on may still change it.

        Lasts `ATTEMPT_S` or, when it is well then, until that has held. Returns at once when the worker is to stop.
        """
        synthesis = await asyncio.to_thread(
            self._evidence.synthesis, task.evidence_digest, task.tenant, task.incident_id
        )
        last = await until_held(lambda: self._measure(task, synthesis), ATTEMPT_S)
        return last.model_copy(update={"settled": last.recovered})

    async def _measure(self, task: VerifyIn, synthesis: Synthesis) -> Verification:
        """One measurement; runaways that could not be counted are unknown for now, and named.

        Raises OncallError(TELEMETRY_UNAVAILABLE).
        """
        telemetry = self._sources.telemetry(None)
        now = datetime.now(UTC)
        topology = await telemetry.topology()
        after = await telemetry.metrics(max(task.since, now - timedelta(seconds=HOLD_S)), now)
        blind: list[str] = []
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
