"""The network specialist's tools: handshakes with the service's addresses, and the latency of each hop around it."""

import asyncio
from typing import Any

import numpy as np

from oncall.model.errors import OncallError
from oncall.model.observation import Observation
from oncall.probes import tcp
from oncall.telemetry.deviation import CAP, Deviation, deviations
from oncall.telemetry.vocabulary import Aspect, meaning
from oncall.telemetry.window import Spans, Window
from oncall.tools.metrics import described, query_metrics
from oncall.tools.toolkit import Toolkit

MAX_HOPS = 8
_RECENT_S = 30.0


async def check_network_latency(toolkit: Toolkit) -> Observation:
    """Timed TCP connects to each instance of the service, now; over a recording, its network metrics instead.

    Value: {connects: [{address, attempts, failed, best_ms, worst_ms}], unreachable: [message]}. Raises PROBE_FAILED
    when the instances cannot be listed.
    """
    if not toolkit.live:
        return await query_metrics(toolkit, Aspect.NETWORK)
    instances = await toolkit.instances()
    results = await asyncio.gather(*(tcp.connects(instance.address) for instance in instances), return_exceptions=True)
    unreachable = []
    for result in results:
        if isinstance(result, OncallError):
            unreachable.append(result.message)
        elif isinstance(result, BaseException):
            raise result
    value = {
        "connects": [result.model_dump() for result in results if isinstance(result, tcp.Handshakes)],
        "unreachable": unreachable,
    }
    return toolkit.live_value("check_network_latency", {}, value)


async def trace_route(toolkit: Toolkit) -> Observation:
    """The latency of each hop into and out of the service along the call graph.

    Value: {incoming: what its callers measure of their calls to it, outgoing: what it measures of its own calls (metric
    deviations with `caller` and `callee`; an incoming latency has `excess`, the part in robust deviations that the
    service's own latency does not account for), spans: [{caller, calls, median_ms, recent_median_ms}]}.
    Raises TELEMETRY_UNAVAILABLE.
    """
    window, topology, agent = await toolkit.window(), await toolkit.topology(), toolkit.agent
    own = await toolkit.deviations()
    served = _served(own)
    incoming: list[dict[str, Any]] = []
    for caller in topology.callers(agent.region, agent.service):
        measured = deviations(window, agent.region, caller, topology.regions)
        for metric, deviation in measured.items():
            about = meaning(metric)
            if about.end == agent.service and about.outside:
                entry = {"caller": caller, "callee": agent.service, **described(metric, deviation)}
                if about.aspect is Aspect.LATENCY and about.floor:
                    change = (deviation.recent - deviation.past) / about.floor
                    beyond = (change - served) / (deviation.spread / about.floor)
                    entry["excess"] = max(0.0, min(entry["bad"], beyond, CAP))
                incoming.append(entry)
    outgoing = [
        {"caller": agent.service, "callee": meaning(metric).end, **described(metric, deviation)}
        for metric, deviation in own.items()
        if meaning(metric).end is not None and meaning(metric).outside
    ]
    value = {
        "incoming": sorted(incoming, key=_order)[:MAX_HOPS],
        "outgoing": sorted(outgoing, key=_order)[:MAX_HOPS],
        "spans": _hops(window.spans(agent.region, agent.service), window),
        "has_spans": window.has_spans,
    }
    cut = max(len(incoming), len(outgoing)) > MAX_HOPS
    return toolkit.ranged(
        "trace_route", {}, value, window, f"the {MAX_HOPS} most deviant hops each way" if cut else None
    )


def _order(entry: dict[str, Any]) -> tuple[float, str, str]:
    return (-entry["bad"], str(entry["caller"]), entry["metric"])


def _served(own: dict[str, Deviation] | Any) -> float:
    """The largest rise of the service's own latency, in units of its floor (so that ms and s compare)."""
    rises = [0.0]
    for metric, deviation in own.items():
        about = meaning(metric)
        if about.aspect is Aspect.LATENCY and not about.outside and about.floor:
            rises.append((deviation.recent - deviation.past) / about.floor)
    return max(rises)


def _hops(spans: Spans, window: Window) -> list[dict[str, Any]]:
    found = []
    since = window.end.timestamp() - _RECENT_S
    for caller in sorted(set(spans.callers)):
        mask = spans.callers == caller
        recent = spans.durations_ms[mask & (spans.times >= since)]
        found.append(
            {
                "caller": str(caller),
                "calls": int(mask.sum()),
                "median_ms": float(np.median(spans.durations_ms[mask])),
                "recent_median_ms": float(np.median(recent)) if len(recent) else None,
            }
        )
    return found[:MAX_HOPS]
