"""Going on call, as a person types it, against the whole embedded stack: two faults in a row are two incidents, each
noticed by the shift itself, opened once and finished, and the watch goes on."""

from pathlib import Path

import pytest

from tests.campaign.faults import live_through

pytestmark = pytest.mark.timeout(400)


async def test_faults_in_a_row_are_noticed_opened_once_and_finished(tmp_path: Path) -> None:
    lived = await live_through([("cascading_failure", 101), ("high_error_rate", 102)], tmp_path)
    assert [one.ending for one in lived] == ["resolved", "resolved"]
    # Exactly what each calls for: `true` says that the flag that is off is the right one.
    assert [one.actions for one in lived] == [("disable_flag", "kill_queries"), ("disable_flag",)]
    assert all(one.correct and one.true for one in lived), lived
    assert len({one.run_id for one in lived}) == 2
    assert max(one.noticed_s for one in lived) < 45
