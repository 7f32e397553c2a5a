"""The cache specialist's tools: the region's cache server, and what it throws away."""

from oncall.model.observation import Observation
from oncall.telemetry.vocabulary import Aspect
from oncall.tools.metrics import query_metrics
from oncall.tools.toolkit import Toolkit


async def check_cache_health(toolkit: Toolkit) -> Observation:
    """The cache server that the service's region shares, now; over a recording, the service's cache metrics instead.

    Value: memory, clients, hits and misses since the server's start, its slow log. Raises PROBE_FAILED.
    """
    if not toolkit.live:
        return await query_metrics(toolkit, Aspect.CACHE)
    state = await toolkit.cache()
    return toolkit.live_value("check_cache_health", {}, state.model_dump())


async def get_eviction_stats(toolkit: Toolkit) -> Observation:
    """How full the cache is and how much it has evicted since its start.

    Value: {used_memory_bytes, max_memory_bytes, full: 0 to 1 or null, policy, evicted_keys, evictions_per_s}. Over a
    recording, the service's cache metrics instead. Raises PROBE_FAILED.
    """
    if not toolkit.live:
        return await query_metrics(toolkit, Aspect.CACHE)
    state = await toolkit.cache()
    value = {
        "used_memory_bytes": state.used_memory_bytes,
        "max_memory_bytes": state.max_memory_bytes,
        "full": state.used_memory_bytes / state.max_memory_bytes if state.max_memory_bytes else None,
        "policy": state.policy,
        "evicted_keys": state.evicted_keys,
        "expired_keys": state.expired_keys,
        "evictions_per_s": state.evicted_keys / max(1, state.uptime_s),
    }
    return toolkit.live_value("get_eviction_stats", {}, value)
