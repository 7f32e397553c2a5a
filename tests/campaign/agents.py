"""Which agents ran, and which ran again: what the server acknowledged against what the workers left behind.

Each attempt of an agent that gets to its end stores one finding, signed by a key of that attempt alone. So a finding of
a later attempt than the acknowledged one is the trace of an agent that ran again for nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from activities.evidence import FINDING_TYPE
from oncall.model.envelope import Envelope
from oncall.model.finding import FindingRef
from oncall.model.names import agent_uri, attempts_of
from oncall.model.steps import INVESTIGATE, SURVEY, InvestigateIn


@dataclass(frozen=True)
class Agents:
    """Agents of one incident. `again`: those that were not acknowledged at their first attempt, so had to run again.
    `wasted` lists acknowledged ones of which there is a later attempt, or a second order to run."""

    planned: int = 0
    acknowledged: int = 0
    again: int = 0
    wasted: tuple[str, ...] = ()


def account(events: Iterable[HistoryEvent], attempts: dict[str, set[int]]) -> Agents:
    """The account of a finished history; `attempts` are those that left a finding, by agent."""
    orders: dict[int, str] = {}
    acknowledged: dict[str, int] = {}
    this_wave: set[str] = set()
    tries: dict[int, int] = {}
    twice: list[str] = []
    answers = 0
    for event in events:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                if scheduled.activity_type.name == SURVEY.name:
                    # A new look begins: whoever looks now may have looked before.
                    this_wave.clear()
                if scheduled.activity_type.name != INVESTIGATE.name:
                    continue
                agent = _agent(InvestigateIn.model_validate_json(scheduled.input.payloads[0].data))
                if agent in this_wave:
                    twice.append(f"{agent} was ordered again")
                orders[event.event_id] = agent
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                started = event.activity_task_started_event_attributes
                tries[started.scheduled_event_id] = started.attempt
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                if ordered := orders.get(completed.scheduled_event_id):
                    found = FindingRef.model_validate_json(completed.result.payloads[0].data)
                    acknowledged[ordered] = max(acknowledged.get(ordered, 0), int(found.agent.rpartition("/")[2]))
                    this_wave.add(ordered)
                    answers += 1
    later = [
        f"{agent} was acknowledged at attempt {acknowledged[agent]} and has a finding of attempt {max(attempts[agent])}"
        for agent in acknowledged
        if max(attempts.get(agent, {0})) > acknowledged[agent]
    ]
    return Agents(
        planned=len(orders),
        acknowledged=answers,
        again=sum(tries.get(event_id, 1) > 1 for event_id in orders),
        wasted=(*twice, *later),
    )


def attempts_stored(blobs: Path, incident_id: str, since: float) -> dict[str, set[int]]:
    """The attempts that left a finding of this incident, by agent; blobs older than `since` (epoch) are not read."""
    found: dict[str, set[int]] = {}
    for subject in _subjects(blobs, since):
        agent, _, attempt = subject.rpartition("/attempt/")
        if f"/incident/{incident_id}/" in agent:
            found.setdefault(agent, set()).add(int(attempt))
    return found


def _subjects(blobs: Path, since: float) -> Iterator[str]:
    for path in blobs.glob("??/*"):
        if path.name.startswith(".tmp") or path.stat().st_mtime < since:
            continue
        try:
            envelope = Envelope.model_validate_json(path.read_bytes())
        except ValidationError:
            continue
        if envelope.payload_type == FINDING_TYPE:
            yield envelope.chain[0].subject


def _agent(task: InvestigateIn) -> str:
    agent = task.agent
    return attempts_of(agent_uri(task.tenant, agent.region, task.incident_id, agent.specialist, agent.service, 0))
