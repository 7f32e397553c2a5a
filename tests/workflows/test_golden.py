"""Golden histories: today's code takes every decision that recorded incidents took, and notices when it would not."""

import json
from pathlib import Path

import pytest

from oncall.temporal.replay import replay

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
async def test_a_golden_history_replays(path: Path) -> None:
    result = await replay(path.read_text())
    assert result.identical, result.divergence


def test_every_ending_has_a_golden_history() -> None:
    assert {path.stem for path in GOLDEN} >= {
        "resolved",
        "mitigated",
        "not_recovered",
        "denied_one",
        "read_denied",
        "no_fault",
        "inconclusive",
        "expired",
        "aborted",
        "recording",
        # A gate outlived its READ grant, recorded before such an incident slept.
        "woken_without_a_grant",
    }


async def test_a_history_with_two_phases_in_another_order_diverges() -> None:
    history = json.loads(next(path for path in GOLDEN if path.stem == "resolved").read_text())
    names = [
        event["activityTaskScheduledEventAttributes"]["activityType"]
        for event in history["events"]
        if "activityTaskScheduledEventAttributes" in event
    ]
    by_name = {kind["name"]: kind for kind in names}
    by_name["synthesize"]["name"], by_name["verify"]["name"] = "verify", "synthesize"
    result = await replay(json.dumps(history))
    assert not result.identical
    assert result.divergence is not None
    assert "'verify' does not match" in result.divergence
    assert "'synthesize'" in result.divergence
    assert "Failure {" not in result.divergence
