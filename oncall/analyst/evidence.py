"""What each specialist's observations weigh: pure functions from tool values to a score and a sentence.

Sentences hold numbers and names of metrics only; text that a service or a client wrote stays in the observation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oncall.analyst.runaways import runaways
from oncall.analyst.thresholds import CAP, DIRECT, EACH_RUNAWAY, NOTABLE
from oncall.model.agent import Specialist
from oncall.model.observation import Observation
from oncall.telemetry.vocabulary import meaning

# Bytes on the wire follow the traffic; they point at a network only weakly.
_TRAFFIC_WEIGHT = 0.3


@dataclass(frozen=True)
class Evidence:
    """One thing that an observation shows: how strongly (0 and up), in a sentence, and which observation."""

    score: float
    text: str
    observation: str


def number(value: float) -> str:
    """A number as people write it: three significant digits."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def changed(entry: Mapping[str, Any]) -> str:
    """A metric's deviation as a phrase."""
    return f"{entry['metric']} {number(entry['past'])} → {number(entry['recent'])} since {clock(entry['since'])}"


def clock(moment: str) -> str:
    """The time of day of an ISO 8601 moment."""
    return datetime.fromisoformat(moment).strftime("%H:%M:%S")


def symptom(observations: Sequence[Observation]) -> Evidence | None:
    """The service's worst symptom: what its callers notice."""
    return _worst(observations, "symptoms")


def _worst(observations: Sequence[Observation], kind: str, weight: float = 1.0) -> Evidence | None:
    best: Evidence | None = None
    for observation in observations:
        if observation.tool == "query_metrics":
            for entry in observation.value[kind]:
                if best is None or weight * entry["bad"] > best.score:
                    best = Evidence(weight * entry["bad"], changed(entry), observation.id)
    return best


def _subject(observations: Sequence[Observation]) -> Evidence | None:
    """The worst metric of the specialist's own subject.

    Failures that the subject itself counts (timeouts of a pool, say) account for the symptom that goes with them.
    """
    best, noticed = _worst(observations, "subject"), symptom(observations)
    for observation in observations:
        if observation.tool == "query_metrics" and noticed is not None:
            for entry in observation.value["subject"]:
                if entry["bad"] >= NOTABLE and meaning(entry["metric"]).failures and noticed.score > entry["bad"]:
                    return Evidence(noticed.score, changed(entry), observation.id)
    return best


def _database(observations: Sequence[Observation]) -> list[Evidence]:
    found = [_subject(observations)]
    for observation in observations:
        if observation.tool == "query_slow_queries":
            for runaway in runaways(observation.value):
                ages = runaway.ages_s
                found.append(
                    Evidence(
                        min(CAP, EACH_RUNAWAY * len(ages)),
                        f"{len(ages)} executions of statement {runaway.query_id} on {runaway.database} have run"
                        f" for {number(ages[-1])} to {number(ages[0])} s",
                        observation.id,
                    )
                )
    return [evidence for evidence in found if evidence]


def _cache(observations: Sequence[Observation]) -> list[Evidence]:
    return [evidence for evidence in [_subject(observations)] if evidence]


def _network(observations: Sequence[Observation]) -> list[Evidence]:
    found = [_worst(observations, "subject", _TRAFFIC_WEIGHT)]
    for observation in observations:
        if observation.tool == "trace_route":
            for entry in observation.value["incoming"]:
                if entry.get("excess", 0.0) > 0:
                    text = f"calls from {entry['caller']} take longer than the service itself does: {changed(entry)}"
                    found.append(Evidence(entry["excess"], text, observation.id))
        if observation.tool == "check_network_latency":
            for entry in observation.value["connects"]:
                if entry["failed"]:
                    share = entry["failed"] / entry["attempts"]
                    text = f"{entry['failed']} of {entry['attempts']} connects to {entry['address']} failed"
                    found.append(Evidence(DIRECT * share, text, observation.id))
    return [evidence for evidence in found if evidence]


def _resources(observations: Sequence[Observation]) -> list[Evidence]:
    found = [_subject(observations)]
    for observation in observations:
        if observation.tool == "check_instance_health":
            for entry in observation.value["instances"]:
                if entry["status"] != "running":
                    found.append(Evidence(DIRECT, f"instance {entry['name']} is not running", observation.id))
    return [evidence for evidence in found if evidence]


def _logs(observations: Sequence[Observation]) -> list[Evidence]:
    noticed = symptom(observations)
    found: list[Evidence] = []
    for observation in observations:
        if observation.tool != "search_errors":
            continue
        for entry in observation.value["patterns"]:
            strength = abs(entry["deviation"])
            if entry["error"] and entry["own"] > 0:
                strength *= entry["own"]
                if noticed is not None and strength >= NOTABLE:
                    # New errors of its own that go with a symptom account for the symptom.
                    strength = max(strength, entry["own"] * noticed.score)
                text = (
                    f"an error pattern of its own came {entry['recent']} times since {clock(entry['since'])},"
                    f" {number(entry['expected'])} expected"
                )
            elif not entry["error"]:
                text = f"a usual log pattern came {entry['recent']} times, {number(entry['expected'])} expected"
            else:
                continue
            found.append(Evidence(min(CAP, strength), text, observation.id))
    return found


_SUBJECTS: dict[Specialist, Callable[[Sequence[Observation]], list[Evidence]]] = {
    Specialist.DATABASE: _database,
    Specialist.CACHE: _cache,
    Specialist.NETWORK: _network,
    Specialist.RESOURCES: _resources,
    Specialist.LOGS: _logs,
}


def evidence(specialist: Specialist, observations: Sequence[Observation]) -> tuple[Evidence, ...]:
    """Everything a specialist's observations show about its own subject, strongest first."""
    found = _SUBJECTS[specialist](observations)
    return tuple(sorted(found, key=lambda each: (-each.score, each.text)))
