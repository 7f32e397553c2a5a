"""The approver of a campaign: answers what is asked, whatever is dying around them, and remembers what was taken."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import Client

from oncall.cli.deciding import make_decision
from oncall.cli.evidence import check_evidence
from oncall.cli.request_view import read_pending
from oncall.cli.stack import ROLES
from oncall.config import Config
from oncall.model.access import AccessRequest, Decision
from oncall.model.errors import OncallError
from oncall.model.incident import PendingApproval
from oncall.temporal import gates
from tests.campaign.events import Event, Sink, Source
from tests.campaign.fleet import Fleet

_LOOK_S = 0.2
_AGAIN_S = 0.2


@dataclass(frozen=True)
class Manner:
    """How this person answers. `thinks_s` before each answer; `refuses` an action type; `forged` lets somebody who is
    on nobody's list answer first."""

    thinks_s: float = 0.5
    refuses: str | None = None
    forged: bool = False


@dataclass(frozen=True)
class Sent:
    """A decision whose signal the server acknowledged. Not `genuine`: signed by a stranger."""

    request: AccessRequest
    digest: str
    approved: bool
    genuine: bool


class Person:
    """Answers one incident's questions. `key` is the approver's, `stranger` that of nobody."""

    def __init__(
        self, client: Client, config: Config, keys: tuple[Path, Path], fleet: Fleet, sink: Sink, manner: Manner
    ) -> None:
        self._client = client
        self._config = config
        self._key, self._stranger = keys
        self._fleet = fleet
        self._sink = sink
        self._manner = manner
        self._answered: set[str] = set()
        self.sent: list[Sent] = []

    async def run(self, incident_id: str) -> None:
        """Answer until cancelled. Raises Terminal when a request must not be signed."""
        while True:
            for pending in await self._asked(incident_id):
                if pending.request_digest not in self._answered:
                    await self._answer(pending)
            await asyncio.sleep(_LOOK_S)

    async def _asked(self, incident_id: str) -> tuple[PendingApproval, ...]:
        try:
            return await gates.approvals(self._client, incident_id)
        except OncallError:
            return ()

    async def _answer(self, pending: PendingApproval) -> None:
        request = read_pending(pending)
        await asyncio.sleep(self._manner.thinks_s)
        type_ = request.intent.parameters.type if request.intent else None
        approved = type_ is None or type_ != self._manner.refuses
        if approved:
            await asyncio.to_thread(check_evidence, request, self._config)
        sign: Callable[[Path], Decision] = lambda key: make_decision(pending, approved, "campaign", key)  # noqa: E731
        decision = await asyncio.to_thread(sign, self._key)
        self._sink(Event(Source.PERSON, f"signs:{request.kind}"))
        await self._fleet.gone(ROLES)
        if self._manner.forged:
            forged = await asyncio.to_thread(sign, self._stranger)
            await self._send(pending, request, forged, genuine=False)
        await self._send(pending, request, decision, genuine=True)
        self._sink(Event(Source.PERSON, f"sent:{request.kind}"))
        self._answered.add(pending.request_digest)

    async def _send(self, pending: PendingApproval, request: AccessRequest, decision: Decision, genuine: bool) -> None:
        """Until the server has taken it, or the incident is over and we are cancelled. What it took without our hearing
        of it arrives twice, and is a duplicate then."""
        while True:
            try:
                await gates.decide(self._client, pending.incident_id, decision)
            except OncallError:
                await asyncio.sleep(_AGAIN_S)
            else:
                self.sent.append(Sent(request, pending.request_digest, decision.approved, genuine))
                return
