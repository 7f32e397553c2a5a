"""`python -m tests.campaign.naive`: a remediate worker as one would write it in an afternoon; no part of the product.

It checks no signature, claims nothing, records nothing before its effect, sends no idempotency key that a second
attempt would repeat, reads the version that it compares with just before it writes, and starts over when it is retried.
It is here to be caught: a campaign that does not see it doubling could not see anything.
"""

import asyncio
import secrets

from pydantic import SecretStr
from temporalio.worker import Worker

from activities.implements import implements
from oncall.access.connect import Vault
from oncall.access.references import Reference
from oncall.config import Config, load_config
from oncall.model.access import AccessRequest
from oncall.model.action import ActionResult, DisableFlag, KillQueries, Outcome
from oncall.model.names import Queue
from oncall.model.steps import REMEDIATE, RemediateIn
from oncall.remedies.flag_api import open_flag
from oncall.remedies.kill_queries import KillQueriesRemedy
from oncall.remedies.remedy import Session
from oncall.temporal.client import connect
from oncall.trust.requests import action_digest, parse_request, request_digest

SEEN_S = 10.0


class FromVault:
    """Hands out whatever is asked for."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def reveal(self, reference: str) -> SecretStr:
        """The secret at `reference`."""
        return await self._vault.resolve(Reference.parse(reference))


class Naive:
    """Does what it is told, every time it is told."""

    def __init__(self, config: Config, vault: Vault) -> None:
        self._config = config
        self._credentials = FromVault(vault)

    @implements(REMEDIATE)
    async def remediate(self, task: RemediateIn) -> ActionResult:
        """Succeeded, as far as it knows."""
        request = parse_request(task.request)
        assert request.intent is not None
        if isinstance(request.intent.parameters, DisableFlag):
            await self._disable(request, request.intent.parameters)
        else:
            await self._kill(request, request.intent.parameters)
        return ActionResult(
            action_digest=action_digest(request.intent.parameters, request.intent.target),
            request_digest=request_digest(request),
            outcome=Outcome.SUCCEEDED,
            verified=True,
        )

    async def _disable(self, request: AccessRequest, flag: DisableFlag) -> None:
        base = self._config.references.flags_write
        server = await self._credentials.reveal(f"{base}/server")
        credential = await self._credentials.reveal(f"{base}/credential")
        async with open_flag(server, credential, flag.flag, flag.region) as api:
            state = await api.get()
            state = await api.put(False, state.version, secrets.token_hex(8), request_digest(request))
            async with asyncio.timeout(SEEN_S):
                while any(client.version < state.version for client in (await api.get()).recent()):
                    await asyncio.sleep(0.2)

    async def _kill(self, request: AccessRequest, kill: KillQueries) -> None:
        remedy = KillQueriesRemedy(self._config.references.database_write)
        session = Session(request_digest(request), self._credentials)
        before = await remedy.precheck(kill, session)
        if not before.nothing:
            await remedy.apply(kill, session, before)


async def main() -> None:
    """Polls until killed."""
    config = load_config()
    assert config.connect.write_token_file is not None
    token = SecretStr(config.connect.write_token_file.read_text(encoding="utf-8").strip())
    activities = Naive(config, Vault(config.connect.url, token))
    async with Worker(await connect(), task_queue=Queue.REMEDIATE, activities=[activities.remediate]):
        print('{"ready": true, "role": "remediate"}', flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
