"""One agent's work without a language model: run the specialist's tools, weigh what they show, say what stayed dark."""

from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np

from oncall.analyst.evidence import Evidence, evidence, symptom
from oncall.analyst.thresholds import CAP, NOTABLE, SEVERE
from oncall.model.agent import Specialist
from oncall.model.errors import ErrorCode, OncallError
from oncall.model.finding import Finding, Health
from oncall.model.observation import Observation
from oncall.telemetry.deviation import MIN_PAST
from oncall.telemetry.vocabulary import Aspect
from oncall.tools.cache import check_cache_health, get_eviction_stats
from oncall.tools.database import query_db_connections, query_slow_queries
from oncall.tools.logs import get_application_logs, search_errors
from oncall.tools.metrics import query_metrics
from oncall.tools.network import check_network_latency, trace_route
from oncall.tools.resources import check_instance_health
from oncall.tools.toolkit import Toolkit

Tool = Callable[[Toolkit], Awaitable[Observation]]

TOOLS: dict[Specialist, tuple[Tool, ...]] = {
    Specialist.DATABASE: (query_db_connections, query_slow_queries),
    Specialist.CACHE: (check_cache_health, get_eviction_stats),
    Specialist.NETWORK: (check_network_latency, trace_route),
    Specialist.RESOURCES: (check_instance_health,),
    Specialist.LOGS: (get_application_logs, search_errors),
}
# What a source or a system failed to show; anything else (a revoked grant, a vault that is away) ends the agent.
_BLINDING = frozenset({ErrorCode.PROBE_FAILED, ErrorCode.TELEMETRY_UNAVAILABLE})
_SENTENCES = 3
# Segments appear two to three seconds after what they hold; much later means that the recorder is stuck.
_BEHIND_S = 20.0


async def examine(toolkit: Toolkit) -> Finding:
    """The finding of the toolkit's agent. A tool that fails is named in `blind`; if all do, health is UNKNOWN.

    Raises whatever a tool raises apart from PROBE_FAILED and TELEMETRY_UNAVAILABLE.
    """
    agent = toolkit.agent
    metrics: Tool = partial(query_metrics, aspect=Aspect(agent.specialist.value))
    observations: dict[str, Observation] = {}
    blind: list[str] = []
    tools: tuple[Tool, ...] = (metrics, *TOOLS[agent.specialist])
    for tool in tools:
        try:
            observation = await tool(toolkit)
        except OncallError as error:
            if error.code not in _BLINDING:
                raise
            if error.message not in blind:
                blind.append(error.message)
        else:
            observations[observation.id] = observation
    seen = tuple(observations.values())
    late = await _behind(toolkit, seen)
    young = await _without_past(toolkit, seen)
    noticed = symptom(seen)
    found = evidence(agent.specialist, seen)
    score = min(CAP, found[0].score) if found else 0.0
    suffering = min(CAP, noticed.score) if noticed else 0.0
    return Finding(
        agent=toolkit.uri,
        specialist=agent.specialist,
        service=agent.service,
        region=agent.region,
        health=_health(seen, max(score, suffering), sure=late is None and young is None),
        score=round(score, 3),
        symptom=round(suffering, 3),
        summary=_summary(seen, found, noticed),
        observations=seen,
        blind=(*blind, *(note for note in (late, young) if note)),
    )


async def _behind(toolkit: Toolkit, seen: tuple[Observation, ...]) -> str | None:
    """A note when live telemetry ends well before the time it was asked for: what came after is unseen."""
    if not toolkit.live or not any(observation.reproducible for observation in seen):
        return None
    behind_s = (toolkit.as_of - (await toolkit.window()).end).total_seconds()
    return f"telemetry ends {behind_s:.0f} s before {toolkit.as_of:%H:%M:%S}" if behind_s > _BEHIND_S else None


async def _without_past(toolkit: Toolkit, seen: tuple[Observation, ...]) -> str | None:
    """A note when live telemetry has no past from before the alert: nothing tells what is usual."""
    if not toolkit.live or not any(observation.reproducible for observation in seen):
        return None
    metrics = (await toolkit.window()).metrics(toolkit.agent.region, toolkit.agent.service)
    alert = toolkit.alert_at.timestamp()
    if any(np.count_nonzero(series.times < alert) >= MIN_PAST for series in metrics.values()):
        return None
    return f"no telemetry of the service from before the alert at {toolkit.alert_at:%H:%M:%S}: what is usual is unknown"


def _health(seen: tuple[Observation, ...], worst: float, sure: bool) -> Health:
    if not seen:
        return Health.UNKNOWN
    if worst >= SEVERE:
        return Health.UNHEALTHY
    if worst >= NOTABLE:
        return Health.DEGRADED
    # What was quiet some time ago, or has nothing to be compared with, cannot be called healthy now.
    return Health.HEALTHY if sure else Health.UNKNOWN


def _summary(seen: tuple[Observation, ...], found: tuple[Evidence, ...], noticed: Evidence | None) -> str:
    if not seen:
        return "Nothing could be seen."
    telling = [each.text for each in found if each.score >= NOTABLE][:_SENTENCES]
    if noticed is not None and noticed.score >= NOTABLE:
        telling.append(f"symptom: {noticed.text}")
    return "; ".join(telling) or "Nothing left its usual range."
