"""A recording's name comes from workflow input: it names a folder below the configured root and nothing else."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.sources import Sources
from oncall.config import SourcesConfig
from oncall.model.errors import ErrorCode, Terminal


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    case = tmp_path / "recordings" / "case-1"
    case.mkdir(parents=True)
    (case / "alert.json").write_text(json.dumps({"alerts": [{"startsAt": "2026-01-01T03:00:00Z"}]}))
    (tmp_path / "outside").mkdir()
    return Sources(SourcesConfig(telemetry=tmp_path / "live", recordings=tmp_path / "recordings"))


def test_a_recording_is_read_as_of_its_alert_and_opened_once(sources: Sources) -> None:
    assert sources.as_of("case-1") == datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert sources.telemetry("case-1") is sources.telemetry("case-1")


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "/etc", "case-1/..", "case-2", "case-1/", "a\0b"])
def test_no_other_name_is_opened(sources: Sources, name: str) -> None:
    for opened in (sources.telemetry, sources.as_of):
        with pytest.raises(Terminal) as caught:
            opened(name)
        assert caught.value.code is ErrorCode.TELEMETRY_UNAVAILABLE


def test_a_worker_without_a_root_reads_no_recording(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="reads no recordings"):
        Sources(SourcesConfig(telemetry=tmp_path)).telemetry("case-1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"alerts": []}', '{"alerts": [{"startsAt": "soon"}]}'])
def test_a_broken_alert_is_one_line(sources: Sources, tmp_path: Path, text: str) -> None:
    (tmp_path / "recordings" / "case-1" / "alert.json").write_text(text)
    with pytest.raises(Terminal, match="no alert with a startsAt"):
        sources.as_of("case-1")
