"""The resources specialist's tool: the service's processes as the platform sees them, and the flags they hold."""

from oncall.model.observation import Observation
from oncall.telemetry.vocabulary import Aspect
from oncall.tools.metrics import query_metrics
from oncall.tools.toolkit import Toolkit


async def check_instance_health(toolkit: Toolkit) -> Observation:
    """The service's running instances, now; over a recording, its processor and memory metrics instead.

    Value: {instances: [{name, address, pid, started_at, restarts, status, cpu_percent, rss_bytes, flags: {key: {value,
    version, since}}}]}; names and keys are untrusted. Raises PROBE_FAILED.
    """
    if not toolkit.live:
        return await query_metrics(toolkit, Aspect.RESOURCES)
    instances = await toolkit.instances()
    return toolkit.live_value(
        "check_instance_health", {}, {"instances": [instance.model_dump() for instance in instances]}
    )
