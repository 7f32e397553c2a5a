"""Measuring recovery, as an incident does it: by itself while people think, and after the last remedy."""

import contextlib
from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from oncall.model import steps
from oncall.model.opening import Opening
from oncall.model.symptom import Symptom
from oncall.model.verification import Verification
from workflows.call import call, failure
from workflows.options import LOOK_AGAIN, VERIFY_PATIENCE

SLEEPS = "without-a-grant-nothing-is-measured"
"""Histories from before this woke up all the same."""


class Recovery:
    """The measurements of one incident. What cannot be measured is noted, and is not recovered."""

    def __init__(self, opening: Opening, note: Callable[[str], None]) -> None:
        self._opening = opening
        self._note = note
        self._stopped = False
        self.by_itself: Verification | None = None

    def stop_looking(self) -> None:
        """A remedy is about to run: what recovers from now on did not recover by itself."""
        self._stopped = True

    async def look_out(self, symptoms: tuple[Symptom, ...], grant: Callable[[], str | None]) -> None:
        """Measure, ever more rarely, until the figures have recovered (`by_itself`) or `stop_looking` was called."""
        since = workflow.now()
        while symptoms:
            if grant() is None and workflow.patched(SLEEPS):
                # There is nothing to wake up for: a gate may wait for days.
                await workflow.wait_condition(lambda: self._stopped or grant() is not None)
                since = workflow.now()
            pause = max(LOOK_AGAIN.first, (workflow.now() - since) * LOOK_AGAIN.share)
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._stopped,
                    timeout=min(pause, LOOK_AGAIN.longest),
                    timeout_summary="look whether it has recovered by itself",
                )
            if self._stopped:
                return
            measured = await self.measure(symptoms, grant())
            if measured is not None and measured.recovered and not self._stopped:
                self.by_itself = measured
                return

    async def measure(self, symptoms: tuple[Symptom, ...], grant: str | None) -> Verification | None:
        """Whether these figures are back within their thresholds; None where that cannot be measured."""
        if not symptoms or grant is None:
            return None
        task = steps.MeasureIn(
            incident_id=self._opening.incident_id, tenant=self._opening.tenant, symptoms=symptoms, grant_digest=grant
        )
        try:
            while True:
                measured = await call(steps.MEASURE, task, "has it recovered by itself")
                # A worker that was told to stop says nothing of the estate: the next one does.
                if measured.settled or self._stopped:
                    return measured
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._note(failure(error).line)
            return None

    async def verify(self, synthesis: steps.Synthesis, grant: str) -> Verification | None:
        """The last measurement after the remedies: one that has held, or the one at which patience ended."""
        cause, began = synthesis.diagnosis.root_cause, workflow.now()
        if cause is None:
            return None
        task = steps.VerifyIn(
            incident_id=self._opening.incident_id,
            tenant=self._opening.tenant,
            root_cause=cause,
            evidence_digest=synthesis.evidence_digest,
            grant_digest=grant,
            since=began,
        )
        while True:
            measured = await call(steps.VERIFY, task, f"has {cause.service} in {cause.region} recovered")
            if measured.settled or workflow.now() - began >= VERIFY_PATIENCE:
                return measured
