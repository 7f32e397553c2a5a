"""From the findings of a wave to one diagnosis, or an honest "inconclusive", and the actions that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oncall.analyst.evidence import number
from oncall.analyst.places import Key, Place, gather
from oncall.analyst.propose import propose
from oncall.analyst.rank import Standing, standings
from oncall.analyst.thresholds import NOTABLE, SEVERE
from oncall.config import References
from oncall.model.action import Action
from oncall.model.agent import Specialist
from oncall.model.coverage import Coverage
from oncall.model.diagnosis import Claim, Conclusion, Diagnosis, RootCause, Suspect
from oncall.model.finding import Finding
from oncall.model.observation import Observation
from oncall.model.topology import Instance, Topology

RANKED = 10
# The first suspect must stand this far above the second for the evidence to name one.
_CLEAR = 1.25
_BLIND = 20
# The share of a symptom that makes something else the likely reason for it.
_MOST = 0.5


@dataclass(frozen=True)
class Analysis:
    """A diagnosis, the actions that follow, and every observation that either cites."""

    diagnosis: Diagnosis
    actions: tuple[Action, ...]
    observations: tuple[Observation, ...]


def synthesize(
    findings: Sequence[Finding],
    topology: Topology,
    coverage: Coverage,
    quorum: float,
    references: References | None = None,
) -> Analysis:
    """What the findings add up to. `quorum`, 0 to 1, is the share of a suspect's peers that must have been seen.

    `references` name the credentials that an action would need; without them the defaults of `oncall.yaml` hold.
    """
    places = gather(findings)
    ranking = standings(places, topology)
    known = {observation.id: observation for finding in findings for observation in finding.observations}
    conclusion, reason = _conclude(findings, ranking, places, topology, coverage, quorum)
    claims = _claims(ranking, places, topology, conclusion)
    kept = tuple(claim for claim in claims if claim.observations and all(each in known for each in claim.observations))
    root = _root(ranking, coverage) if conclusion is Conclusion.ROOT_CAUSE else None
    actions: tuple[Action, ...] = ()
    if root is not None:
        actions = propose(root, ranking[0].place, places, references or References())
    diagnosis = Diagnosis(
        conclusion=conclusion,
        root_cause=root,
        abstained=root is None,
        summary=reason,
        ranked=tuple(
            Suspect(
                region=each.place.region,
                service=each.place.service,
                specialist=each.specialist,
                score=round(each.score, 3),
            )
            for each in ranking[:RANKED]
            if each.score > 0
        ),
        claims=kept,
        dropped_claims=len(claims) - len(kept),
        blind=_blind(findings, coverage),
    )
    cited = [*(each for claim in kept for each in claim.observations)]
    cited += [each for action in actions for each in action.observations]
    return Analysis(diagnosis, actions, tuple(known[each] for each in dict.fromkeys(cited)))


def _conclude(
    findings: Sequence[Finding],
    ranking: Sequence[Standing],
    places: Mapping[Key, Place],
    topology: Topology,
    coverage: Coverage,
    quorum: float,
) -> tuple[Conclusion, str]:
    if not ranking or not any(place.seen for place in places.values()):
        return Conclusion.INCONCLUSIVE, "Nothing could be seen: no agent reported anything."
    first = ranking[0]
    where = f"{first.place.service} in {first.place.region}"
    beyond = _beyond(places, topology)
    if beyond is not None:
        return Conclusion.INCONCLUSIVE, beyond
    if first.score >= SEVERE:
        seen = _peers_seen(first.place, places, topology, coverage)
        if seen < quorum:
            return (
                Conclusion.INCONCLUSIVE,
                f"{where} is the first suspect, but only {seen:.0%} of the agents around it reported"
                f" (quorum {quorum:.0%}).",
            )
        unmeasured = _unmeasured(first, places, topology)
        if unmeasured is not None:
            return (
                Conclusion.INCONCLUSIVE,
                f"{where} is the first suspect, but it calls {unmeasured}, which nobody could measure.",
            )
        second = ranking[1] if len(ranking) > 1 else None
        if second is None or first.score >= _CLEAR * second.score:
            return Conclusion.ROOT_CAUSE, _cause(first, coverage)
        return (
            Conclusion.INCONCLUSIVE,
            f"{where} and {second.place.service} in {second.place.region} stand out alike.",
        )
    suffering = max(place.suffering for place in places.values())
    # A figure that strays while nothing suffers, in errors or latency, is noise: a few requests make it.
    if first.score >= NOTABLE and suffering >= NOTABLE:
        return Conclusion.INCONCLUSIVE, f"{where} left its usual range, but not clearly enough to name a cause."
    shared = [place for place in places.values() if place.everywhere >= SEVERE]
    if len({place.region for place in shared}) > 1:
        return (
            Conclusion.INCONCLUSIVE,
            "Services got worse in several regions alike: no region serves as a control, and no cause stands out.",
        )
    seeing = min(coverage.completed, sum(place.seen for place in places.values()))
    if seeing < coverage.planned:
        return (
            Conclusion.INCONCLUSIVE,
            f"Nothing stands out, but only {seeing} of {coverage.planned} agents could see their service.",
        )
    impaired = sum(1 for finding in findings if finding.blind)
    if coverage.planned - impaired < quorum * coverage.planned:
        return (
            Conclusion.INCONCLUSIVE,
            f"Nothing stands out, but {impaired} of {coverage.planned} agents were partly blind.",
        )
    if first.score >= NOTABLE:
        return Conclusion.NO_FAULT, f"Every agent looked; {where} strayed a little, and nothing suffers from it."
    return Conclusion.NO_FAULT, "Every agent looked, and nothing left its usual range."


def _beyond(places: Mapping[Key, Place], topology: Topology) -> str | None:
    """A sentence when something suffers from its calls to a service that nobody looked at; else None."""
    for place in places.values():
        for callee in topology.callees(place.region, place.service):
            link = place.links.get(callee)
            unseen = (place.region, callee) not in places
            if unseen and link is not None and min(link.score, place.suffering) >= NOTABLE:
                return f"{place.service} in {place.region} suffers from {callee}, which no agent has looked at."
    return None


def _unmeasured(first: Standing, places: Mapping[Key, Place], topology: Topology) -> str | None:
    """A callee that may be why the first suspect suffers, and that nobody has measured; None when there is none."""
    place = first.place
    # Not its log: a callee that writes nothing makes its caller's errors look like the caller's own.
    own = max(place.strongest(specialist) for specialist in Specialist if specialist is not Specialist.LOGS)
    for callee in topology.callees(place.region, place.service):
        below, link = places.get((place.region, callee)), place.links.get(callee)
        if Instance(region=place.region, service=callee) not in topology.services:
            continue
        if link is not None:
            # Calls that fail are not explained by how busy the other end's host is.
            told = below is not None and below.symptom is not None
            blamed = link.score >= max(NOTABLE, _MOST * place.suffering, own)
        else:
            # One that is called no more has no symptoms, but it is there.
            told = below is not None and below.measured
            blamed = own < NOTABLE
        if blamed and not told:
            return callee
    return None


def _peers_seen(place: Place, places: Mapping[Key, Place], topology: Topology, coverage: Coverage) -> float:
    """The share of agents that saw something, over the suspect, its neighbours and its peers in other regions."""
    region, service = place.region, place.service
    around = {(region, service)}
    around |= {(region, other) for other in (*topology.callees(region, service), *topology.callers(region, service))}
    around |= {(each.region, each.service) for each in topology.services if each.service == service}
    each = len(Specialist)
    if coverage.planned < each * len(topology.services):
        # A smaller roster was meant to look at part of the estate only: what it never planned is not missing.
        around &= set(places)
        whole = coverage.completed / max(1, coverage.planned)
    else:
        whole = 1.0
    seen = sum(min(each, places[key].seen) for key in around if key in places)
    return min(whole, seen / max(1, each * len(around)))


def _cause(first: Standing, coverage: Coverage) -> str:
    place = first.place
    found = place.evidence.get(first.specialist, ())
    what = found[0].text if found else (place.symptom.text if place.symptom else "")
    return (
        f"{place.service} in {place.region} ({first.specialist.value}): {what}."
        f" {coverage.completed} of {coverage.planned} agents reported."
    )


def _root(ranking: Sequence[Standing], coverage: Coverage) -> RootCause:
    first = ranking[0]
    found = first.place.evidence.get(first.specialist, ())
    cause = found[0].text if found else (first.place.symptom.text if first.place.symptom else "")
    rival = ranking[1].score if len(ranking) > 1 else 0.0
    margin = 1.0 - rival / first.score
    both = 1.0 if first.place.suffering >= NOTABLE and found and found[0].score >= SEVERE else 0.0
    seen = coverage.completed / max(1, coverage.planned)
    confidence = seen * (0.3 + 0.4 * margin + 0.25 * both)
    return RootCause(
        region=first.place.region,
        service=first.place.service,
        specialist=first.specialist,
        cause=cause,
        confidence=round(min(0.95, confidence), 2),
    )


def _claims(
    ranking: Sequence[Standing], places: Mapping[Key, Place], topology: Topology, conclusion: Conclusion
) -> list[Claim]:
    if not ranking or conclusion is Conclusion.NO_FAULT or ranking[0].score < NOTABLE:
        return []
    first = ranking[0]
    place = first.place
    where = f"{place.service} in {place.region}"
    claims = []
    for evidence in place.evidence.get(first.specialist, ())[:3]:
        if evidence.score >= NOTABLE:
            claims.append(Claim(text=f"{where}: {evidence.text}.", observations=(evidence.observation,)))
    if place.symptom is not None and place.suffering >= NOTABLE:
        claims.append(Claim(text=f"{where} suffers: {place.symptom.text}.", observations=(place.symptom.observation,)))
    for caller in topology.callers(place.region, place.service):
        above = places.get((place.region, caller))
        link = above.links.get(place.service) if above else None
        if link is not None and link.score >= NOTABLE:
            claims.append(Claim(text=f"{caller} in {place.region}: {link.text}.", observations=(link.observation,)))
    peers = [
        each for each in places.values() if each.service == place.service and each.region != place.region and each.seen
    ]
    calm = [each for each in peers if each.suffering < NOTABLE and each.symptom is not None]
    if calm and len(calm) == len(peers):
        regions = " and ".join(sorted(each.region for each in calm))
        claims.append(
            Claim(
                text=f"{place.service} keeps its usual range in {regions}.",
                observations=tuple(each.symptom.observation for each in calm if each.symptom),
            )
        )
    if len(ranking) > 1 and ranking[1].score >= NOTABLE:
        claims += _second(ranking[1])
    return claims


def _second(second: Standing) -> list[Claim]:
    place = second.place
    found = [each for each in (place.symptom, *place.evidence.get(second.specialist, ())[:1]) if each]
    text = (
        f"{place.service} in {place.region} is the next suspect ({number(second.score)});"
        f" what it calls explains {second.explained:.0%} of its symptom."
    )
    return [Claim(text=text, observations=tuple(dict.fromkeys(each.observation for each in found)))]


def _blind(findings: Sequence[Finding], coverage: Coverage) -> tuple[str, ...]:
    notes = dict.fromkeys(note for finding in findings for note in finding.blind)
    shown = list(notes)[:_BLIND]
    if len(notes) > _BLIND:
        shown.append(f"and {len(notes) - _BLIND} more")
    missing = coverage.planned - coverage.completed
    if missing > 0:
        shown.append(f"{missing} of {coverage.planned} agents did not report")
    return tuple(shown)
