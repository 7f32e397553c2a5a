"""One look of a shift at everything it watches: metrics only, under the READ grant that people gave it."""

import asyncio
from datetime import UTC, datetime, timedelta

from activities.implements import implements
from activities.sources import Sources
from activities.tenant import check_tenant
from oncall.access.read import ReadBroker
from oncall.analyst.notice import Noticed, notice
from oncall.config import Config
from oncall.model.errors import ErrorCode, OncallError, Retryable
from oncall.model.steps import OBSERVE, Observed, ObserveIn
from oncall.model.topology import Topology
from oncall.rules.grouping import group

RETRY_AFTER_S = 1.0
"""Telemetry that is away is looked for again soon: a shift without it is blind."""


class Watch:
    """Looks at the live estate."""

    def __init__(self, config: Config, broker: ReadBroker, sources: Sources) -> None:
        self._config = config
        self._broker = broker
        self._sources = sources

    @implements(OBSERVE)
    async def observe(self, task: ObserveIn) -> Observed:
        """What stands out now, as alerts, and who could not be seen.

        Raises Terminal(BAD_CONFIG) for another tenant's shift, what `ReadBroker.check_open` raises once the grant is
        not open any more, and Retryable(TELEMETRY_UNAVAILABLE).
        """
        check_tenant(self._config, task.tenant, "the shift")
        await self._broker.check_open(task.grant_digest, f"observe for {task.shift_id}")
        as_of = datetime.now(UTC)
        try:
            topology, noticed = await self._look(as_of)
        except OncallError as error:
            if error.code is not ErrorCode.TELEMETRY_UNAVAILABLE:
                raise
            raise Retryable(error.code, error.message, RETRY_AFTER_S) from None
        critical = self._config.shift.critical_error_percent
        # In a thread, as the noticing is: this loop also runs probes that have a second to answer.
        groups = await asyncio.to_thread(group, noticed.sightings, topology, critical)
        return Observed(as_of=as_of, services=noticed.services, groups=groups, blind=noticed.blind)

    async def _look(self, as_of: datetime) -> tuple[Topology, Noticed]:
        telemetry, thresholds = self._sources.telemetry(None), self._config.shift
        topology = await telemetry.topology()
        window = await telemetry.metrics(as_of - timedelta(seconds=thresholds.lookback_s), as_of)
        return topology, await asyncio.to_thread(notice, window, topology, thresholds, as_of)
