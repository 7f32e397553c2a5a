"""Contract: `disable_flag` speaks with the estate's own flag service, and waits for a client that polls over OFREP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from estate.flag_service import FlagService
from estate.flags import FlagStore
from estate.flagset import flag_specs
from oncall.model.action import DisableFlag
from oncall.model.errors import ErrorCode, Terminal
from oncall.remedies.disable_flag import DisableFlagRemedy
from oncall.remedies.remedy import Applied, Session
from tests.remedies.vault import Vault

ITEM = "op://Infrastructure-Write/config-service"
REGION = "eu-west-1"
CREDENTIAL = "estate-test-credential"


@contextlib.asynccontextmanager
async def polling(url: str, service: str, every_s: float) -> AsyncIterator[None]:
    """A client as the estate's services are: it presents the ETag of the last answer it took over."""

    async def poll() -> None:
        etag = ""
        context = {"targetingKey": f"{service}-1", "region": REGION, "service": service}
        async with aiohttp.ClientSession() as client:
            while True:
                headers = {"If-None-Match": etag} if etag else {}
                path = f"{url}/ofrep/v1/evaluate/flags"
                async with client.post(path, json={"context": context}, headers=headers) as answer:
                    etag = answer.headers.get("ETag", etag)
                await asyncio.sleep(every_s)

    task = asyncio.create_task(poll())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_off_seen_by_its_client_and_on_again(tmp_path: Path) -> None:
    store = FlagStore(flag_specs(1), 1, tmp_path / "audit")
    flag = next(flag for flag in store.select(REGION, "order") if flag.enabled)
    runner = web.AppRunner(FlagService(store, CREDENTIAL).app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with polling(url, "order", 0.4):
            await asyncio.sleep(1)
            remedy = DisableFlagRemedy(ITEM)
            session = Session("sha256:1", Vault({f"{ITEM}/server": url, f"{ITEM}/credential": CREDENTIAL}))
            parameters = DisableFlag(region=REGION, flag=flag.key, expected_version=flag.version)
            before = await remedy.precheck(parameters, session)
            assert before.values["clients"] == 1
            effect = await remedy.apply(parameters, session, before)
            assert effect.applied is Applied.YES
            again = await remedy.apply(parameters, session, before)
            assert again.values["replayed"] is True
            proof = await remedy.verify(parameters, session, before, effect)
            assert proof.verified, proof.detail
            assert proof.values["waited_s"] > 0.1, "the client had to poll twice"
            assert await remedy.rollback(parameters, session, effect)
            assert store.get(flag.key, REGION).enabled
            with pytest.raises(Terminal) as caught:
                await remedy.precheck(parameters, session)
            assert caught.value.code is ErrorCode.TARGET_CHANGED
    finally:
        await runner.cleanup()
