"""Contract: the real 1Password Connect SDK works against our double, and each token opens one vault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from onepasswordconnectsdk.client import new_client
from onepasswordconnectsdk.errors import FailedToRetrieveItemException, FailedToRetrieveVaultException

from tests.estate.running import RunningEstate


@asynccontextmanager
async def _sdk(estate: RunningEstate, token: str) -> AsyncIterator[Any]:
    client: Any = new_client(estate.info["connect"], token, is_async=True)
    try:
        yield client
    finally:
        await client.session.aclose()


async def test_items_by_name(estate: RunningEstate) -> None:
    async with _sdk(estate, estate.token("connect-read")) as client:
        item = await client.get_item("prod-db-readonly", "Infrastructure")
        assert {section.label for section in item.sections} == {"us-east-1", "us-west-2", "eu-west-1"}
        names = {section.id: section.label for section in item.sections}
        labels = [(names[field.section.id], field.label, field.type) for field in item.fields]
        assert ("us-east-1", "password", "CONCEALED") in labels
        assert ("us-east-1", "username", "STRING") in labels
        assert ("us-east-1", "server", "STRING") in labels
        titles = {summary.title for summary in await client.get_items(item.vault.id)}
        assert titles == {"prod-db-readonly", "cache-readonly", "aws-cloudwatch", "k8s-prod-readonly"}
        assert (await client.get_item(item.id, item.vault.id)).title == "prod-db-readonly"
    async with _sdk(estate, estate.token("connect-write")) as client:
        item = await client.get_item("config-service", "Infrastructure-Write")
        fields = {field.label: field for field in item.fields}
        assert fields["credential"].type == "CONCEALED"
        assert fields["server"].value == estate.info["flags"]


async def test_a_token_sees_its_own_vault_only(estate: RunningEstate) -> None:
    async with _sdk(estate, estate.token("connect-write")) as client:
        [mine] = await client.get_vaults()
        assert mine.name == "Infrastructure-Write"
    async with _sdk(estate, estate.token("connect-read")) as client:
        with pytest.raises(FailedToRetrieveItemException):
            await client.get_item("prod-db-rwaccess", "Infrastructure-Write")
        with pytest.raises(FailedToRetrieveVaultException):
            await client.get_vault(mine.id)


async def test_wrong_token_missing_vault_and_item(estate: RunningEstate) -> None:
    async with _sdk(estate, "nonsense") as client:
        with pytest.raises(FailedToRetrieveVaultException, match="401"):
            await client.get_vaults()
    async with _sdk(estate, estate.token("connect-read")) as client:
        with pytest.raises(FailedToRetrieveItemException, match="Found 0 vaults"):
            await client.get_item("prod-db-readonly", "Nowhere")
        with pytest.raises(FailedToRetrieveItemException, match="Found 0 items"):
            await client.get_item("nothing", "Infrastructure")


def test_errors_are_json_and_requests_are_logged_without_values(estate: RunningEstate) -> None:
    token = estate.token("connect-read")
    with httpx.Client(base_url=estate.info["connect"]) as client:
        assert client.get("/heartbeat").text == "."
        assert client.get("/health").status_code == 200
        headers = {"Authorization": f"Bearer {token}"}
        bad = client.get("/v1/vaults", params={"filter": "name = x"}, headers=headers)
        assert (bad.status_code, bad.json()["status"]) == (400, 400)
        missing = client.get(f"/v1/vaults/{'a' * 26}", headers=headers)
        assert missing.status_code == 404
        assert set(missing.json()) == {"status", "message"}
        assert client.post("/v1/vaults", headers=headers).status_code == 405
    text = (estate.state_dir / "connect-requests.jsonl").read_text()
    assert token not in text
    assert json.loads(text.splitlines()[-1]) == {
        "method": "POST",
        "path": "/v1/vaults",
        "token": "connect-read",
    }
