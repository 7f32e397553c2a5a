"""Follows one run of an incident: what it said last, and since when it has not answered.

Guarantee: a worker or a Temporal server that is away ends nothing; the last answer stays, and is asked for again.
Failure mode: an answer that comes while nobody asks, or between two looks, is seen only in what it left behind.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client

from oncall.model.errors import Retryable
from oncall.model.incident import Phase
from oncall.model.progress import IncidentProgress
from oncall.rules.progress import progress as progress_of
from oncall.temporal import incidents
from oncall.temporal.incidents import Outline

POLL_S = 0.5
TICK_S = 0.25
SILENT_AFTER = timedelta(seconds=5)
"""A busy worker may take its time; one that takes longer is called silent."""

_COMPLETE_S = 2.0
_UNEXPLAINED = "are Temporal and a worker (`worker.py --role orchestrate`) running?"
"""While neither an answer nor a failure has come."""


@dataclass(frozen=True)
class Sight:
    """What is known of an incident at one moment.

    `progress` is the last answer, None before the first: then only the outline is known. `silent_since` is when it last
    answered, None while it does. `over`: its workflow has completed, and nothing will change any more.
    """

    outline: Outline
    progress: IncidentProgress | None = None
    silent_since: datetime | None = None
    why_silent: str = ""
    over: bool = False

    @property
    def status(self) -> str:
        """The phase, or the ending; empty when nobody has said yet."""
        return self.progress.status if self.progress else self.outline.status

    def document(self) -> dict[str, Any]:
        """The JSON of `watch`: the progress and `silent_since`. The keys are always the same; null is not known yet."""
        since = {"silent_since": self.silent_since.isoformat() if self.silent_since else None}
        if self.progress:
            return self.progress.model_dump(mode="json") | since
        outline = self.outline
        known = {
            "incident_id": outline.incident_id,
            "workflow_id": outline.incident_id,
            "run_id": outline.run_id,
            "status": outline.status or None,
            "severity": outline.severity or None,
            "anomaly_type": outline.anomaly_type or None,
            "opened_at": outline.opened_at.isoformat(),
        }
        return dict.fromkeys(IncidentProgress.model_fields) | known | since


class _Ear:
    """Asks again and again, and keeps the last answer."""

    def __init__(self, client: Client, outline: Outline) -> None:
        self._client = client
        self._outline = outline
        self._progress: IncidentProgress | None = None
        self._heard_at = datetime.now(UTC)
        self._why = _UNEXPLAINED
        self._over = False

    def sight(self) -> Sight:
        """What is known now."""
        silent = not self._over and datetime.now(UTC) - self._heard_at > SILENT_AFTER
        since = self._heard_at if silent else None
        return Sight(self._outline, self._progress, since, self._why if silent else "", self._over)

    async def listen(self) -> None:
        """Until the workflow has completed. Raises Terminal when it is gone, or was ended from outside."""
        while not self._over:
            try:
                await self._ask()
            except Retryable as error:
                self._why = error.message
            await asyncio.sleep(0 if self._over else POLL_S)

    async def _ask(self) -> None:
        which = (self._client, self._outline.incident_id, self._outline.run_id)
        self._hear(await incidents.progress(*which))
        if self._progress and self._progress.phase is Phase.CLOSED:
            # The workflow still writes its report then: only its result comes after everything.
            self._hear(progress_of(await incidents.result(*which, _COMPLETE_S)))
            self._over = True

    def _hear(self, progress: IncidentProgress) -> None:
        self._progress, self._heard_at, self._why = progress, datetime.now(UTC), _UNEXPLAINED


async def follow(client: Client, outline: Outline) -> AsyncGenerator[Sight, None]:
    """What is known, every TICK_S seconds, until the incident is over: the last one says so. Raises Terminal."""
    ear = _Ear(client, outline)
    listening = asyncio.create_task(ear.listen())
    try:
        while not listening.done():
            yield ear.sight()
            await asyncio.wait((listening,), timeout=TICK_S)
        listening.result()
        yield ear.sight()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def changes(client: Client, outline: Outline) -> AsyncGenerator[Sight, None]:
    """Of those, the ones that differ from the one before, beginning with the first answer or the first silence."""
    last: dict[str, Any] = {}
    async with aclosing(follow(client, outline)) as sights:
        async for sight in sights:
            heard = sight.progress is not None or sight.silent_since is not None
            if heard and (document := sight.document()) != last:
                last = document
                yield sight
