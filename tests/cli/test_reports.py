"""Contract: a report shows everything that happened, and nothing in it can act on whoever reads it."""

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from oncall.cli.markdown import to_markdown
from oncall.cli.output import Output
from oncall.cli.postmortem import Evidence, Grid, Paragraph, number, postmortem
from oncall.cli.record import find_record, load_report, write_record
from oncall.cli.story import Story
from oncall.cli.webpage import to_html
from oncall.model.action import Outcome
from oncall.model.errors import Terminal
from oncall.model.report import IncidentReport

HOSTILE = (
    "\x1b[2J\x1b]8;;http://evil\x07\u202e<script>alert(1)</script><img src=x onerror=y> [a](javascript:b) `c` | d\n# e"
)
NOW = "2026-11-20T20:00:00Z"


def report(text: str = HOSTILE) -> IncidentReport:
    """A report with `text` wherever text can come from outside."""
    return IncidentReport.model_validate(
        {
            "incident_id": "incident-1",
            "workflow_id": "incident-1",
            "run_id": "run-1",
            "status": "unresolved",
            "severity": "critical",
            "anomaly_type": text,
            "requester": text,
            "opened_at": NOW,
            "closed_at": NOW,
            "alert": {
                "labels": {"alertname": text},
                "annotations": {"summary": text},
                "starts_at": NOW,
                "fingerprint": "f",
            },
            "phases": [{"phase": "received", "started_at": NOW, "ended_at": NOW}],
            "coverage": {"planned": 150, "completed": 149, "timed_out": 1},
            "diagnosis": {
                "conclusion": "root_cause",
                "root_cause": {
                    "region": text,
                    "service": text,
                    "specialist": "logs",
                    "cause": text,
                    "confidence": 0.9,
                },
                "abstained": False,
                "summary": text,
                "ranked": [{"region": text, "service": text, "specialist": "logs", "score": 9.5}],
                "claims": [{"text": text, "observations": ["obs-1"]}],
                "blind": [text],
            },
            "observations": {
                "obs-1": {
                    "id": "obs-1",
                    "agent": text,
                    "tool": "get_application_logs",
                    "arguments": {"pattern": text},
                    "taken_at": NOW,
                    "value": {"lines": [text, "``` closes the fence"]},
                    "sha256": "0" * 64,
                    "reproducible": True,
                }
            },
            "access": [
                {
                    "request_id": "req-1",
                    "grant_id": None,
                    "kind": "write",
                    "references": ["op://a/b/c"],
                    "purpose": text,
                    "request_digest": "sha256:1",
                    "decision": "denied",
                    "approvers": ["alice"],
                    "reason": text,
                    "requested_at": NOW,
                    "answer_by": NOW,
                    "decided_at": NOW,
                    "grant_expires_at": NOW,
                    "refused_decisions": 2,
                }
            ],
            "actions": [
                {
                    "action_id": "act-1",
                    "action_digest": "sha256:2",
                    "type": "disable_flag",
                    "target": {"kind": "flag", "identity": text},
                    "parameters": {"flag": text},
                    "risk": "low",
                    "verdict": "approve",
                    "request_id": "req-1",
                    "outcome": "denied",
                    "before": {"note": text},
                    "after": {},
                    "verified": False,
                    "rolled_back": False,
                    "detail": text,
                    "reason": text,
                    "manual_steps": [text],
                }
            ],
            "verification": {
                "recovered": False,
                "improved": False,
                "checks": [
                    {
                        "name": text,
                        "region": "r",
                        "service": "s",
                        "before": 100.0,
                        "after": None,
                        "threshold": 1.25,
                        "ok": False,
                    }
                ],
            },
            "usage": {"model": "analyst"},
            "timings": {"total_s": 12.345},
            "files": {},
            "notes": [text],
        }
    )


class Elements(HTMLParser):
    """The elements and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_page_holds_no_element_but_ours_and_forbids_everything() -> None:
    page = to_html(postmortem(report()))
    parser = Elements()
    parser.feed(page)
    assert not parser.seen & {"script", "img", "a", "iframe", "object", "form", "link"}
    assert parser.attributes <= {"lang", "charset", "http-equiv", "content", "name"}
    assert "default-src 'none'" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_markdown_holds_no_html_no_link_and_no_heading_but_ours() -> None:
    text = to_markdown(postmortem(report()))
    outside = re.sub(r"(?ms)^(`{3,})json\n.*?\n\1$", "", text)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert not re.search(r"(?<!\\)`", outside)
    assert not re.search(r"(?m)^# e", outside)
    assert "\x1b" not in text
    # Evidence cannot close its own fence.
    assert "````json" in text


def test_terminal_text_carries_no_escape_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Output(as_json=True)
    screen = StringIO()
    out.console = Console(file=screen, width=200, force_terminal=False, markup=False, highlight=False)
    story = Story(out)
    story.diagnosis(report())
    story.ending(report())
    story.chapter(HOSTILE)
    shown = screen.getvalue()
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "<script>" in shown  # still visible: hiding it would be another lie


def test_json_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).emit(report())
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.strip().isprintable()
    assert IncidentReport.model_validate(json.loads(line)) == report()


def test_a_report_says_all_that_a_reader_asks() -> None:
    text = to_markdown(postmortem(report("plainword")))
    for said in (
        "149 of 150 agents",
        "timed out 1",
        "By hand",
        "Not recovered",
        "obs\\-1",
        "12\\.35 s",
        "100",
        "alice",
    ):
        assert said in text, said


def _with(outcome: Outcome, **changes: object) -> str:
    found = report("plainword")
    action = found.actions[0].model_copy(update={"outcome": outcome})
    return to_markdown(postmortem(found.model_copy(update={"actions": (action,), "verification": None, **changes})))


@pytest.mark.parametrize(
    ("outcome", "ran"),
    [(Outcome.DENIED, False), (Outcome.SKIPPED, False), (Outcome.FAILED, True), (Outcome.UNKNOWN, True)],
)
def test_what_may_have_changed_something_is_never_called_nothing(outcome: Outcome, ran: bool) -> None:
    text = _with(outcome)
    assert ("It did not run" in text) is not ran
    assert ("Nothing was changed" in text) is not ran
    assert ("look at the target first" in text) is ran


def test_what_an_aborted_incident_changed_is_not_called_nothing_nor_an_open_one_s_yet() -> None:
    assert "Nothing was changed" not in _with(Outcome.SUCCEEDED, status="aborted")
    running = _with(Outcome.SKIPPED, closed_at=None)
    assert "It has not ended so far" in running
    assert "Nothing was changed" not in running


def test_numbers_are_short_and_a_missing_one_is_a_dash() -> None:
    assert [number(n) for n in (None, 0.0, 1.25, 100.0, 0.333333, 1e6)] == ["–", "0", "1.25", "100", "0.33", "1000000"]


def test_blocks_render_in_both_forms() -> None:
    blocks = (Paragraph("a < b"), Grid(("h",), (("c",),)), Evidence("t", "{}"))
    assert "a &lt; b" in to_html(blocks)
    assert "a &lt; b" in to_markdown(blocks)


def test_a_record_is_found_again_and_its_names_cannot_leave_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCALL_STATE", str(tmp_path))
    evil = report().model_copy(update={"incident_id": "../../evil", "run_id": "../r", "opened_at": datetime.now(UTC)})
    written = write_record(tmp_path / "demo", evil, "{}")
    # It quotes logs and statements of production.
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "demo").rglob("*.*")} == {0}
    assert written.files.history is not None
    assert Path(written.files.history).resolve().is_relative_to(tmp_path / "demo" / "incidents")
    notes: list[str] = []
    folder = find_record("../../evil", notes.append)
    assert folder is not None
    assert load_report(folder) == written
    assert notes
    assert find_record("incident-2", notes.append) is None
    (folder / "report.json").write_text("{}")
    with pytest.raises(Terminal, match=r"report\.json: not an incident report"):
        load_report(folder)
