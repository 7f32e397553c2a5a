"""Whether it is over: the same figures before and after, against what the service's own past says is usual.

What cannot be measured is unknown, and unknown is never "ok".
"""

from collections.abc import Mapping, Sequence

import numpy as np

from oncall.analyst.figures import requests
from oncall.analyst.thresholds import RECOVERED_WITHIN
from oncall.model.agent import Specialist
from oncall.model.diagnosis import RootCause
from oncall.model.symptom import Symptom
from oncall.model.topology import Topology
from oncall.model.verification import Check, Verification
from oncall.telemetry.deviation import MIN_PAST, Deviation, badness, deviations, stale
from oncall.telemetry.vocabulary import Aspect, Meaning, meaning
from oncall.telemetry.window import Series, Window

# The worst of this many latest readings must be fine: one good reading between two bad ones is no recovery.
_LATEST = 2
# Per aspect, the words that name the figure people ask for first: the share of failures, the slow requests.
_ASKED_FIRST = {Aspect.ERRORS: "%", Aspect.SUCCESS: "%", Aspect.LATENCY: "95"}
# Where peers stand in for a past, so much of their readings counts as usual.
_PEER_SHARE = 0.9


def symptoms(window: Window, topology: Topology, root_cause: RootCause) -> tuple[Symptom, ...]:
    """The figures that tell whether `root_cause` still hurts: one of errors and one of latency, of the service itself
    and of each entrance of its region, as they were in `window` (which ends during the incident)."""
    region = root_cause.region
    services = dict.fromkeys((root_cause.service, *topology.entrances(region)))
    found = []
    for service in services:
        known = deviations(window, region, service, topology.regions)
        for aspect in (Aspect.ERRORS, Aspect.SUCCESS, Aspect.LATENCY):
            metric = _figure(window, region, service, aspect, known)
            if metric is not None:
                found.append(_symptom(window, topology, region, service, metric, known.get(metric)))
    return tuple(found)


def _figure(window: Window, region: str, service: str, aspect: Aspect, known: Mapping[str, Deviation]) -> str | None:
    names = [
        metric
        for metric in window.metrics(region, service)
        if (about := meaning(metric)).aspect is aspect and about.end is None and not about.outside
    ]

    def worth(metric: str) -> tuple[bool, float, str]:
        deviation = known.get(metric)
        worst = badness(deviation, meaning(metric)) if deviation else 0.0
        return (_ASKED_FIRST[aspect] in metric, worst, metric)

    return max(names, key=worth, default=None)


def _symptom(
    window: Window, topology: Topology, region: str, service: str, metric: str, deviation: Deviation | None
) -> Symptom:
    about = meaning(metric)
    if deviation is not None:
        limit = deviation.past + about.bad * RECOVERED_WITHIN * deviation.spread
        return Symptom(region=region, service=service, metric=metric, before=deviation.recent, threshold=limit)
    series = window.metrics(region, service)[metric]
    before = None if stale(series, window.end.timestamp()) else _worst(series, about)
    limits = [
        float(np.quantile(about.bad * peer.values, _PEER_SHARE)) + RECOVERED_WITHIN * about.floor
        for other in topology.regions
        if other != region and (peer := window.metrics(other, service).get(metric)) and len(peer) >= MIN_PAST
    ]
    threshold = about.bad * max(limits) if limits else None
    return Symptom(region=region, service=service, metric=metric, before=before, threshold=threshold)


def _worst(series: Series, about: Meaning) -> float:
    return about.bad * float((about.bad * series.values[-_LATEST:]).max())


def symptom_checks(before: Sequence[Symptom], after: Window, topology: Topology) -> Verification:
    """One check per symptom: whether its figure is back within its threshold.

    `before` was measured during the incident, `after` ends now. A figure that falls when things are bad is reported as
    how far it is below zero, so that `after <= threshold` always reads "ok". Where nothing was measurably bad before,
    nothing counts as recovered.
    """
    return _verdict([_check(symptom, after, topology) for symptom in before])


def recovery_checks(
    before: Sequence[Symptom],
    after: Window,
    topology: Topology,
    root_cause: RootCause,
    runaways_before: int | None,
    runaways_after: int | None,
) -> Verification:
    """`symptom_checks`, and one check of long-running statements where a database was the cause."""
    checks = [_check(symptom, after, topology) for symptom in before]
    if root_cause.specialist is Specialist.DATABASE or runaways_before:
        checks.append(
            Check(
                name="long-running statements",
                region=root_cause.region,
                service=root_cause.service,
                before=None if runaways_before is None else float(runaways_before),
                after=None if runaways_after is None else float(runaways_after),
                threshold=0.0,
                ok=runaways_after == 0,
            )
        )
    return _verdict(checks)


def _verdict(checks: Sequence[Check]) -> Verification:
    improved = any(check.ok and check.before is not None and check.before > check.threshold for check in checks)
    return Verification(
        recovered=improved and all(check.ok for check in checks), improved=improved, checks=tuple(checks)
    )


def _check(symptom: Symptom, after: Window, topology: Topology) -> Check:
    about = meaning(symptom.metric)
    reading = _reading(after, symptom.region, symptom.service, symptom.metric)
    if about.aspect in (Aspect.ERRORS, Aspect.SUCCESS) and _unasked(after, symptom.region, symptom.service):
        # Nothing of nothing is no share: a service that nobody reaches fails nobody.
        reading = None
    # Of a metric that may go either way nobody can say on which side of its threshold it is well.
    threshold = about.bad * symptom.threshold if symptom.threshold is not None and about.bad else None
    if threshold is not None and about.aspect is Aspect.LATENCY:
        # A host that is busy slows every region: as fast as the slower half of its peers, right now, is recovered.
        peers = [_reading(after, other, symptom.service, symptom.metric) for other in topology.regions]
        known = [
            peer
            for other, peer in zip(topology.regions, peers, strict=True)
            if other != symptom.region and peer is not None
        ]
        threshold = max(threshold, float(np.median(known)) if known else threshold)
    return Check(
        name=symptom.metric,
        region=symptom.region,
        service=symptom.service,
        before=None if symptom.before is None else about.bad * symptom.before,
        after=reading,
        threshold=threshold or 0.0,
        ok=threshold is not None and reading is not None and reading <= threshold,
    )


def _unasked(window: Window, region: str, service: str) -> bool:
    """Whether the source says how many requests there are, and there were none of late."""
    asked = requests(window.metrics(region, service))
    return asked is not None and not asked.values[-_LATEST:].any()


def _reading(window: Window, region: str, service: str, metric: str) -> float | None:
    """The worst of the latest readings, more being worse; None when there is none of late."""
    series = window.metrics(region, service).get(metric)
    if series is None or stale(series, window.end.timestamp()):
        return None
    return meaning(metric).bad * _worst(series, meaning(metric))
