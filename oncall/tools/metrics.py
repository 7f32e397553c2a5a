"""The tool every specialist shares: the service's metrics against their own past and their peers."""

from typing import Any

from oncall.model.errors import ErrorCode, Terminal
from oncall.model.observation import Observation
from oncall.telemetry.deviation import Deviation, badness
from oncall.telemetry.vocabulary import SYMPTOMS, Aspect, meaning
from oncall.tools.toolkit import Toolkit, moment

MAX_METRICS = 6


def described(metric: str, deviation: Deviation) -> dict[str, Any]:
    """One metric's deviation as JSON: medians in the metric's unit.

    `bad` is the deviation in the bad direction, `worse` the same without regard to peers.
    """
    about = meaning(metric)
    return {
        "metric": metric,
        "past": deviation.past,
        "recent": deviation.recent,
        "spread": deviation.spread,
        "deviation": deviation.own,
        "unshared": deviation.score,
        "bad": badness(deviation, about),
        "worse": max(0.0, deviation.own * about.bad),
        "since": moment(deviation.onset),
        "points": deviation.points,
        "peers": list(deviation.peers),
    }


def _largest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: (-entry["bad"], -abs(entry["unshared"]), entry["metric"]))[:MAX_METRICS]


async def query_metrics(toolkit: Toolkit, aspect: Aspect) -> Observation:
    """The service's symptoms (errors, latency, success, as its callers notice them) and its metrics of `aspect`.

    Value: {symptoms, subject, traffic: [metric deviations, worst first], aspect, metrics: how many there are}.
    Raises TELEMETRY_UNAVAILABLE, also when there is no metric of the service with a past.
    """
    window = await toolkit.window()
    found = await toolkit.deviations()
    if not found:
        agent = toolkit.agent
        raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, f"no metrics with a past of {agent.service} in {agent.region}")
    symptoms, subject, traffic = [], [], []
    for metric, deviation in found.items():
        about = meaning(metric)
        if about.end is not None or about.outside:
            continue
        if about.aspect in SYMPTOMS:
            symptoms.append(described(metric, deviation))
        elif about.aspect is Aspect.TRAFFIC:
            traffic.append(described(metric, deviation))
        if about.aspect is aspect and not about.shared:
            subject.append(described(metric, deviation))
    value = {
        "aspect": aspect.value,
        "symptoms": _largest(symptoms),
        "subject": _largest(subject),
        "traffic": _largest(traffic),
        "metrics": len(found),
    }
    cut = max(len(symptoms), len(subject), len(traffic)) > MAX_METRICS
    return toolkit.ranged(
        "query_metrics",
        {"aspect": aspect.value},
        value,
        window,
        f"the {MAX_METRICS} most deviant metrics of each kind" if cut else None,
    )
