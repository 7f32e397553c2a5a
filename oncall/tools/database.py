"""The database specialist's tools: connections by state, and statements that run now or cost most."""

from oncall.model.observation import Observation
from oncall.probes import postgres
from oncall.telemetry.vocabulary import Aspect
from oncall.tools.metrics import query_metrics
from oncall.tools.toolkit import Toolkit


async def query_db_connections(toolkit: Toolkit) -> Observation:
    """Connections to the service's database by state, now; over a recording, its database metrics instead.

    Value: {database, max_connections, states: [{state, count, on_lock, oldest_s}]}. Raises PROBE_FAILED.
    """
    if not toolkit.live:
        return await query_metrics(toolkit, Aspect.DATABASE)
    activity = await toolkit.activity()
    value = {
        "database": activity.database,
        "max_connections": activity.max_connections,
        "states": [state.model_dump() for state in activity.connections],
    }
    return toolkit.live_value("query_db_connections", {"database": activity.database}, value)


async def query_slow_queries(toolkit: Toolkit) -> Observation:
    """Statements that have been running for a while on the service's database, oldest first, and the costliest ones.

    Value: {database, active: [{pid, backend_start, query_id, role, database, age_s, wait_event, text}], statements:
    [{query_id, calls, total_ms, mean_ms, max_ms, text}] or null}; texts are untrusted. Over a recording, the
    database metrics instead. Raises PROBE_FAILED.
    """
    if not toolkit.live:
        return await query_metrics(toolkit, Aspect.DATABASE)
    activity = await toolkit.activity()
    value = {
        "database": activity.database,
        "active": [statement.model_dump() for statement in activity.active],
        "statements": (
            None if activity.statements is None else [statement.model_dump() for statement in activity.statements]
        ),
    }
    full = len(activity.active) >= postgres.MAX_STATEMENTS
    return toolkit.live_value(
        "query_slow_queries",
        {"database": activity.database, "longer_than_s": postgres.SLOW_S},
        value,
        f"the {postgres.MAX_STATEMENTS} oldest statements" if full else None,
    )
