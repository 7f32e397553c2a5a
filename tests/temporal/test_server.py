"""The embedded server is a real one that outlives its process in a database file, and clients find it by Temporal's own
profile and variables."""

import socket
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.names import SearchAttribute
from oncall.temporal.client import connect
from oncall.temporal.embedded import EmbeddedServer, free_port
from oncall.temporal.search import ensure_search_attributes


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_CONFIG_FILE", "TEMPORAL_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


async def test_taken_ports_give_way_and_the_database_outlives_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = await EmbeddedServer.start(tmp_path, port=port, ui_port=0)
        assert server.address != f"127.0.0.1:{port}"
    try:
        monkeypatch.setenv("TEMPORAL_ADDRESS", server.address)
        client = await connect()
        await ensure_search_attributes(client)
        await ensure_search_attributes(client)
        handle = await client.start_workflow("nobody", id="kept", task_queue="nobody-polls")
    finally:
        await server.stop()
    again = await EmbeddedServer.start(tmp_path, port=0, ui_port=0)
    try:
        monkeypatch.setenv("TEMPORAL_ADDRESS", again.address)
        client = await connect()
        assert (await client.get_workflow_handle("kept").describe()).run_id == handle.result_run_id
        known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
        assert set(SearchAttribute) <= set(known.custom_attributes)
    finally:
        await again.stop()
    assert again.process.returncode is not None


async def test_a_profile_file_alone_reaches_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await EmbeddedServer.start(tmp_path, port=0, ui_port=0)
    try:
        profile = tmp_path / "temporal.toml"
        profile.write_text(f'[profile.night]\naddress = "{server.address}"\nnamespace = "default"\n')
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))
        monkeypatch.setenv("TEMPORAL_PROFILE", "night")
        client = await connect()
        assert await client.service_client.check_health()
    finally:
        await server.stop()


async def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{free_port(0)}")
    with pytest.raises(Retryable) as caught:
        await connect()
    assert caught.value.code is ErrorCode.TEMPORAL_UNREACHABLE
    assert "TEMPORAL_ADDRESS" in caught.value.message


async def test_a_broken_profile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "temporal.toml"
    profile.write_text("[profile")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    with pytest.raises(Terminal) as caught:
        await connect()
    assert caught.value.code is ErrorCode.BAD_CONFIG
