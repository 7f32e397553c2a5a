"""Contract: a terminal of any size shows what matters most, nothing from outside acts on it; each change is a line."""

from datetime import timedelta
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from oncall.cli.following import Sight
from oncall.cli.progress_lines import lines
from oncall.cli.progress_view import Board, lasted
from oncall.model.access import AccessKind, GateStatus
from oncall.model.action import Outcome
from oncall.model.agent import Specialist
from oncall.model.coverage import Coverage, PlaceCoverage, Wave
from oncall.model.incident import Phase, PhaseSpan
from oncall.model.progress import IncidentProgress, WaitingRequest
from oncall.rules.progress import progress
from oncall.temporal.incidents import Outline
from tests.cli.test_reports import HOSTILE, report

REGIONS = ("ap-southeast-1", "eu-west-1", "us-east-1")
START = report().opened_at
NOW = START + timedelta(seconds=75)


def wave(completed: int, failed: int = 0, regions: tuple[str, ...] = REGIONS) -> Wave:
    """Ten agents in each place, of whom so many have answered."""
    return Wave(
        number=1,
        places=tuple(
            PlaceCoverage(region=region, specialist=name, planned=10, completed=completed, failed=failed)
            for region in regions
            for name in Specialist
        ),
    )


def sight(text: str = "word", **changes: object) -> Sight:
    """An incident in the middle of its investigation that waits for an approver; `text` comes from outside."""
    shown = progress(report(text), settled=())
    request = WaitingRequest(
        request_id="req-123456789abc",
        kind=AccessKind.WRITE,
        what=f"WRITE disable_flag flag={text}",
        since=START,
        answer_by=NOW + timedelta(minutes=2, seconds=5),
    )
    spans = (
        PhaseSpan(phase=Phase.RECEIVED, started_at=START, ended_at=START + timedelta(seconds=15)),
        PhaseSpan(phase=Phase.INVESTIGATING, started_at=START + timedelta(seconds=15)),
    )
    running: dict[str, object] = {
        "phase": Phase.INVESTIGATING,
        "status": "investigating",
        "closed_at": None,
        "phases": spans,
        "coverage": Coverage(planned=150, completed=75, failed=15),
        "wave": wave(5, 1),
        "waiting": (request,),
    }
    outline = Outline("incident-1", "run-1", START, "investigating", "critical", text)
    return Sight(outline, shown.model_copy(update=running | changes))


def drawn(board: Board, width: int, height: int = 100) -> list[str]:
    """The lines of a board on a screen of that size."""
    screen = StringIO()
    console = Console(file=screen, width=width, height=height, markup=False, highlight=False, emoji=False)
    console.print(board)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("width", [12, 20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    shown = drawn(Board(sight(HOSTILE), NOW), width)
    assert max(map(cell_len, shown)) <= width


def test_eighty_columns_hold_a_row_per_region() -> None:
    shown = drawn(Board(sight(), NOW), 80)
    (headings,) = [line for line in shown if "database" in line]
    assert headings.split() == [name.value for name in Specialist]
    for region in REGIONS:
        (row,) = [line for line in shown if region in line]
        assert row.count("5/10") == 5
        assert row.count("█") > 0
        assert row.count("▓") == 5  # one failure of ten is visible in each bar


def test_forty_columns_hold_a_row_per_region_and_specialist() -> None:
    shown = drawn(Board(sight(), NOW), 40)
    for region in REGIONS:
        for name in Specialist:
            (row,) = [line for line in shown if region in line and name in line]
            assert "5/10" in row
            assert "█" in row


def test_it_says_what_waits_for_how_long_and_how_to_answer() -> None:
    shown = "\n".join(drawn(Board(sight(), NOW), 80))
    for said in (
        "incident-1  critical word",
        "investigating, open for 1 min 15 s",
        "waits for an approver, 2 min 05 s left",
        "WRITE disable_flag flag=word",
        "oncall approve req-123456789abc",
        "agents 75/150 completed, 15 failed",
        "received 15 s",
        "investigating 1 min 00 s",
        "disable_flag word: denied, has not run yet",
    ):
        assert said in shown
    late = "\n".join(drawn(Board(sight(), NOW + timedelta(minutes=3)), 80))
    assert "the deadline was 20:03:20 UTC" in late


def test_a_small_screen_keeps_what_matters_most() -> None:
    whole = drawn(Board(sight(), NOW, fit=True), 80)
    assert "" in whole  # parts are set apart where there is room
    for height in (5, 8, 12, 20):
        shown = drawn(Board(sight(), NOW, fit=True), 80, height)
        assert len(shown) <= height
        assert shown[:2] == whole[:2]
        assert "oncall approve req-123456789abc" in shown
    assert "…" in drawn(Board(sight(), NOW, fit=True), 80, 8)
    assert len(drawn(Board(sight(), NOW, fit=True), 80, 1)) == 1


def test_only_a_screen_that_is_not_redrawn_keeps_every_phase() -> None:
    span = PhaseSpan(phase=Phase.REMEDIATING, started_at=START, ended_at=START)
    many = sight(phases=(span,) * 9)
    assert "\n".join(drawn(Board(many, NOW), 80)).count("remediating") == 9
    assert "\n".join(drawn(Board(many, NOW, fit=True), 80)).count("remediating") == 4


def test_silence_is_said_with_its_seconds_and_its_reason() -> None:
    now = sight()
    silent = Sight(now.outline, now.progress, NOW - timedelta(seconds=12), "no worker polls\x1b[2J")
    shown = " ".join(drawn(Board(silent, NOW), 80))
    assert "no answer since 12 s; still asking: no worker polls\\x1b[2J" in shown
    assert "75/150" in shown  # what is known stays
    unknown = Sight(now.outline, None, NOW, "nobody answers")
    assert "no answer since 0.0 s; still asking: nobody answers" in " ".join(drawn(Board(unknown, NOW), 80))


def test_an_ending_says_whether_recovery_was_measured() -> None:
    closed = progress(report("word"))
    shown = "\n".join(drawn(Board(Sight(sight().outline, closed, over=True), NOW), 80))
    assert "unresolved: recovery was measured, and is not there" in shown
    assert "oncall report incident-1" in shown
    assert "Ctrl-C" not in shown


def test_nothing_from_outside_acts_on_the_terminal() -> None:
    now = sight(HOSTILE, wave=wave(3, regions=(HOSTILE, "eu")))
    for text in ("\n".join(drawn(Board(now, NOW), 80)), "\n".join(lines(None, now))):
        assert "<script>" in text  # still visible: hiding it would be another lie
        assert text.replace("\n", "").isprintable()


def test_each_change_is_a_line() -> None:
    before = sight()
    assert lines(before, before) == []
    first = lines(None, before)
    assert first[:3] == [
        "incident-1: critical word, opened at 20:00:00 UTC",
        "phase received at 20:00:00 UTC",
        "phase investigating at 20:00:15 UTC",
    ]
    assert (
        "waits for an approver: WRITE disable_flag flag=word; answer by 20:03:20 UTC: `oncall approve req-123456789abc`"
        in first
    )
    assert "agents: 75/150 completed, 15 failed" in first
    assert before.progress is not None
    progressed = before.progress
    action = progressed.actions[0]

    def told(was: IncidentProgress = progressed, **changes: object) -> list[str]:
        return lines(Sight(before.outline, was), Sight(before.outline, progressed.model_copy(update=changes)))

    assert told(coverage=Coverage(planned=150, completed=76)) == ["agents: 76/150 completed"]
    assert told(wave=wave(0).model_copy(update={"number": 2})) == ["agents: 75/150 completed, 15 failed (wave 2)"]
    assert told(summary="runaway reads") == ["diagnosis: runaway reads"]
    assert told(waiting=()) == []
    assert told(notes=("word", "aborted by alice")) == ["note: aborted by alice"]
    assert told(closed_at=NOW, status="mitigated") == ["closed: mitigated; `oncall report incident-1` tells it"]
    done = action.model_copy(update={"outcome": Outcome.FAILED, "detail": "the flag is still on"})
    assert told(actions=(done,)) == ["action disable_flag word: failed: the flag is still on"]
    approved = action.model_copy(update={"decision": GateStatus.APPROVED})
    assert told(actions=(approved,)) == ["action disable_flag word: approved, has not run yet"]
    assert told(phase=Phase.REMEDIATING, actions=(approved,)) == ["action disable_flag word: runs now"]
    silent = Sight(before.outline, progressed, NOW, "no worker")
    assert lines(before, silent) == ["no answer since 20:01:15 UTC; still asking: no worker"]
    assert lines(silent, before) == ["answers again"]


def test_durations_fit_their_size() -> None:
    assert [lasted(timedelta(seconds=s)) for s in (-3, 0.25, 12, 65, 3720)] == [
        "0.0 s",
        "0.2 s",
        "12 s",
        "1 min 05 s",
        "1 h 02 min",
    ]
