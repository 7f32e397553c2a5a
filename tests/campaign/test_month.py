"""Days on call, with time skipped: one shift, one incident per problem, and none lost at a continue-as-new."""

import pytest

from tests.campaign import month

SOON = "limit.historyCount.suggestContinueAsNew=150"
"""Runs that are soon full: the month itself has product defaults."""


@pytest.mark.timeout(240)
async def test_two_days_of_hourly_looks_lose_and_double_nothing() -> None:
    counted = await month.live(2, 4, 7, 2, lambda _: None, SOON)
    assert counted.faults == []
    assert (counted.looks, counted.opened, counted.followed_to_the_end) == (50, 4, 4)
    assert counted.outlived_a_run == 2
    assert counted.runs >= 3
    assert counted.renewals >= 5
    assert counted.drift_s < 30
