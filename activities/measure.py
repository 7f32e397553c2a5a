"""Measures whether an alert's own figures are back within their thresholds, without anybody having done anything."""

from datetime import UTC, datetime, timedelta

from activities.implements import implements
from activities.recovery import HOLD_S, until_held
from activities.sources import Sources
from activities.tenant import check_tenant
from oncall.access.read import ReadBroker
from oncall.analyst.recovery import symptom_checks
from oncall.config import Config
from oncall.model.steps import MEASURE, MeasureIn
from oncall.model.verification import Verification


class Measure:
    """Reads the live estate's telemetry under a READ grant."""

    def __init__(self, config: Config, broker: ReadBroker, sources: Sources) -> None:
        self._config = config
        self._broker = broker
        self._sources = sources

    @implements(MEASURE)
    async def measure(self, task: MeasureIn) -> Verification:
        """The last measurement: recovered if every one over `HOLD_S` was good. The first bad or blind one settles it.

        Not settled only when the worker was told to stop meanwhile. Without symptoms nothing has recovered.

        Raises Terminal(BAD_CONFIG) for another tenant's incident, and what `ReadBroker.check_open` raises as soon as
        the grant is not open any more.
        """
        check_tenant(self._config, task.tenant, "the incident")
        return await until_held(lambda: self._look(task), wait_s=0.0)

    async def _look(self, task: MeasureIn) -> Verification:
        await self._broker.check_open(task.grant_digest, f"measure for {task.incident_id}", task.incident_id)
        telemetry = self._sources.telemetry(None)
        now = datetime.now(UTC)
        topology = await telemetry.topology()
        return symptom_checks(task.symptoms, await telemetry.metrics(now - timedelta(seconds=HOLD_S), now), topology)
