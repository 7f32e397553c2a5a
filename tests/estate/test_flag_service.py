"""Contract: OFREP evaluation is open and cacheable; writes need the credential, the version and a key."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest

from tests.estate.running import RunningEstate, eventually

REGION = "eu-west-1"
CONTEXT = {"targetingKey": "probe", "region": REGION, "service": "search"}


def _write(enabled: bool, version: int, key: str | None = None) -> dict[str, Any]:
    return {
        "enabled": enabled,
        "expected_version": version,
        "idempotency_key": key or str(uuid.uuid4()),
        "updated_by": "test",
    }


def _harmless(flags: httpx.Client) -> dict[str, Any]:
    """A flag that is on in normal operation, so that writing it breaks nothing."""
    listed = flags.get(f"/api/admin/flags?region={REGION}").json()["flags"]
    found: dict[str, Any] = next(flag for flag in listed if flag["enabled"])
    return found


def test_bulk_evaluation_and_its_etag(estate: RunningEstate) -> None:
    with estate.client(estate.info["flags"]) as ofrep:
        url = "/ofrep/v1/evaluate/flags"
        answer = ofrep.post(url, json={"context": CONTEXT})
        assert answer.status_code == 200
        flags = answer.json()["flags"]
        assert len(flags) == 4
        for flag in flags:
            assert flag["key"].startswith("search-")
            assert flag["variant"] == ("on" if flag["value"] else "off")
            assert isinstance(flag["reason"], str)
            assert set(flag["metadata"]) == {"version", "updated_at", "updated_by"}
        again = ofrep.post(url, json={"context": CONTEXT}, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
        assert again.headers["ETag"] == answer.headers["ETag"]


def test_single_evaluation(estate: RunningEstate) -> None:
    with estate.client(estate.info["flags"]) as ofrep:
        [first, *_] = ofrep.post("/ofrep/v1/evaluate/flags", json={"context": CONTEXT}).json()["flags"]
        url = f"/ofrep/v1/evaluate/flags/{first['key']}"
        assert ofrep.post(url, json={"context": CONTEXT}).json() == first
        missing = ofrep.post("/ofrep/v1/evaluate/flags/nothing", json={"context": CONTEXT})
        assert (missing.status_code, missing.json()["errorCode"]) == (404, "FLAG_NOT_FOUND")
        assert ofrep.post(url, content=b"[").json()["errorCode"] == "PARSE_ERROR"
        nowhere = ofrep.post(url, json={"context": {"targetingKey": "x"}})
        assert (nowhere.status_code, nowhere.json()["errorCode"]) == (400, "INVALID_CONTEXT")


def test_several_flags_are_on_in_normal_operation(estate: RunningEstate) -> None:
    with estate.flags() as flags:
        listed = flags.get(f"/api/admin/flags?region={REGION}").json()["flags"]
    assert len(listed) == 40
    assert 8 <= sum(flag["enabled"] for flag in listed) <= 20


def test_management_needs_the_credential(estate: RunningEstate) -> None:
    with estate.client(estate.info["flags"]) as stranger:
        assert stranger.get("/api/admin/flags").status_code == 401
        assert stranger.put("/api/admin/flags/x?region=eu-west-1", json={}).status_code == 401


def test_write_is_compare_and_set_and_idempotent(estate: RunningEstate) -> None:
    with estate.flags() as flags:
        flag = _harmless(flags)
        url = f"/api/admin/flags/{flag['key']}?region={REGION}"
        stale = flags.put(url, json=_write(False, flag["version"] + 1))
        assert stale.status_code == 409
        error = stale.json()["error"]
        assert error["code"] == "version_conflict"
        assert error["current"]["version"] == flag["version"]

        body = _write(False, flag["version"])
        written = flags.put(url, json=body)
        assert written.status_code == 200
        assert (written.json()["enabled"], written.json()["version"]) == (False, flag["version"] + 1)
        assert "replayed" not in written.json()
        repeated = flags.put(url, json=body)
        assert (repeated.status_code, repeated.json()["replayed"]) == (200, True)
        assert repeated.json()["version"] == flag["version"] + 1
        reused = flags.put(url, json=_write(True, flag["version"] + 1, body["idempotency_key"]))
        assert reused.json()["error"]["code"] == "idempotency_key_reused"

        state = flags.get(url).json()
        assert flags.put(url, json=_write(True, state["version"])).status_code == 200
    lines = [json.loads(line) for line in (estate.state_dir / "flags-audit.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["key"] == flag["key"] and line["updated_by"] == "test"]
    assert [line["enabled"] for line in mine] == [False, True]


def test_clients_are_the_instances_and_come_to_hold_the_version(estate: RunningEstate) -> None:
    with estate.flags() as flags, estate.registry() as registry:
        flag = _harmless(flags)
        url = f"/api/admin/flags/{flag['key']}?region={REGION}"
        version = flags.put(url, json=_write(True, flag["version"])).json()["version"]

        def held() -> bool:
            [client] = flags.get(url).json()["clients"]
            return bool(client["version"] == version)

        assert eventually(held, 5)
        [client] = flags.get(url).json()["clients"]
        assert set(client) == {"instance", "region", "service", "version", "seen_at"}
        path = f"/api/regions/{REGION}/services/{client['service']}"
        [instance] = registry.get(path).json()["instances"]
        assert instance["name"] == client["instance"]
        assert instance["flags"][flag["key"]]["version"] == version


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"enabled": "no", "expected_version": 1, "idempotency_key": "k", "updated_by": "t"},
        {"enabled": True, "expected_version": True, "idempotency_key": "k", "updated_by": "t"},
        {"enabled": True, "expected_version": 1, "idempotency_key": "", "updated_by": "t"},
    ],
)
def test_bad_writes_are_400(estate: RunningEstate, body: dict[str, object]) -> None:
    with estate.flags() as flags:
        flag = _harmless(flags)
        answer = flags.put(f"/api/admin/flags/{flag['key']}?region={REGION}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_field")


def test_unknown_flags_and_bad_json(estate: RunningEstate) -> None:
    with estate.flags() as flags:
        assert flags.get("/api/admin/flags/nothing?region=eu-west-1").status_code == 404
        flag = _harmless(flags)
        assert flags.get(f"/api/admin/flags/{flag['key']}").status_code == 400
        assert flags.put(f"/api/admin/flags/{flag['key']}?region={REGION}", content=b"{").status_code == 400
