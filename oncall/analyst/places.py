"""The findings of a wave put together by place: one service in one region, with what its five specialists saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from oncall.analyst.evidence import Evidence, changed, evidence, symptom
from oncall.analyst.thresholds import NOTABLE
from oncall.model.agent import Specialist
from oncall.model.finding import Finding, Health
from oncall.model.observation import Observation

Key = tuple[str, str]


@dataclass
class Place:
    """What is known of one service in one region.

    `evidence` is per specialist, strongest first; `links` how badly its calls to each callee went, as it measured
    them; `onsets` when each of its symptoms began (a busy host may have made one begin early); `everywhere` its
    worst symptom before the peers' share was taken away; `seen` how many specialists could tell its health; `measured`
    whether any of them had a metric of it.
    """

    region: str
    service: str
    symptom: Evidence | None = None
    everywhere: float = 0.0
    onsets: list[datetime] = field(default_factory=list)
    evidence: dict[Specialist, tuple[Evidence, ...]] = field(default_factory=dict)
    links: dict[str, Evidence] = field(default_factory=dict)
    observations: list[Observation] = field(default_factory=list)
    seen: int = 0
    measured: bool = False

    @property
    def suffering(self) -> float:
        """The size of its worst symptom, 0 and up."""
        return self.symptom.score if self.symptom else 0.0

    def strongest(self, specialist: Specialist) -> float:
        """The specialist's strongest evidence, 0 and up."""
        found = self.evidence.get(specialist, ())
        return found[0].score if found else 0.0


def gather(findings: Sequence[Finding]) -> Mapping[Key, Place]:
    """The findings by (region, service). Scores come from the observations, not from what a finding claims."""
    places: dict[Key, Place] = {}
    for finding in findings:
        key = (finding.region, finding.service)
        place = places.setdefault(key, Place(*key))
        if finding.health is not Health.UNKNOWN:
            place.seen += 1
        place.observations.extend(finding.observations)
        place.evidence[finding.specialist] = evidence(finding.specialist, finding.observations)
        noticed = symptom(finding.observations)
        if noticed is not None and (place.symptom is None or noticed.score > place.symptom.score):
            place.symptom = noticed
        for observation in finding.observations:
            _links(place, observation)
            _since(place, observation)
    return places


def _links(place: Place, observation: Observation) -> None:
    if observation.tool != "trace_route":
        return
    for entry in observation.value["outgoing"]:
        callee, bad = entry["callee"], entry["bad"]
        known = place.links.get(callee)
        if known is None or bad > known.score:
            place.links[callee] = Evidence(bad, f"calls to {callee}: {changed(entry)}", observation.id)


def _since(place: Place, observation: Observation) -> None:
    began: list[str] = []
    if observation.tool == "query_metrics":
        place.measured = True
        place.everywhere = max([place.everywhere, *(entry["worse"] for entry in observation.value["symptoms"])])
        began = [entry["since"] for entry in observation.value["symptoms"] if entry["bad"] >= NOTABLE]
    elif observation.tool == "search_errors":
        # Errors in the log tell the moment; a metric of a young fault may not have moved enough yet.
        began = [
            entry["since"]
            for entry in observation.value["patterns"]
            if entry["error"] and entry["own"] * entry["deviation"] >= NOTABLE
        ]
    for onset in map(datetime.fromisoformat, began):
        if onset not in place.onsets:
            place.onsets.append(onset)
