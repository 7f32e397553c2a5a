"""Contract: the kill campaign's zeros, in its quick form: one incident on the real estate.

Its workers die in the middle of the swarm, after an effect and before anybody knows of it, and among the kills; and the
server is killed while the report is being written.
"""

import sys
from pathlib import Path

import pytest

from tests.campaign import campaign
from tests.campaign.__main__ import QUICK
from tests.campaign.plan import Planner
from tests.campaign.points import SERVER
from tests.campaign.table import figures, table

SEED = 7


@pytest.mark.timeout(400)
async def test_nothing_is_lost_doubled_or_falsely_resolved(tmp_path: Path) -> None:
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    result = await campaign.run(tmp_path / "state", SEED, Planner(SEED, QUICK, 0, 0), False, say)
    print(table(result))
    assert result.faults() == []
    found = figures(result)
    assert found["points_hit"] == len(QUICK)
    assert found["server_restarts"] == sum(point.victim == SERVER for point in QUICK) > 0
    assert found["effects"] > 0
    assert found["agents_acknowledged"] == found["agents_planned"] > 0
    assert found["agents_unfinished_ran_again"] > 0, "an agent that was running when its worker died runs again"
    assert found["histories_replayed"] == found["incidents"]
