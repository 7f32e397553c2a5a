"""Contract: the campaign sees a doubled effect where there is one.

Two workers are killed at the same point, after an effect and before anybody knows of it: the real one, which is not
seen doubling, and a naive one, which is.
"""

from pathlib import Path

import pytest

from oncall.model.action import DisableFlag, Outcome
from oncall.model.report import IncidentReport
from tests.campaign.bench import Bench, bench, disable
from tests.campaign.campaign import NAIVE
from tests.campaign.effects import Effects, account
from tests.campaign.events import Event
from tests.campaign.points import EFFECT
from tests.campaign.strikes import Strikes
from tests.campaign.tails import LinesTail, Tails, flag_write
from tests.remedies.postgres import Cluster

pytestmark = pytest.mark.timeout(150)


async def killed_after_the_effect(at: Bench, name: str, flag: DisableFlag) -> tuple[IncidentReport, Effects]:
    """One incident whose remediate worker dies at EFFECT: its report, and what the flag service says was done."""
    seen: list[Event] = []
    strikes = Strikes([EFFECT], at.fleet)

    def see(event: Event) -> None:
        strikes.see(event)
        seen.append(event)

    tails = Tails(see)
    tails.add(LinesTail(at.audit, flag_write))
    tails.start()
    report = await at.incident(name, flag)
    tails.stop()
    assert [strike.hit for strike in strikes.fired] == [1]
    await at.fleet.ready(60)
    return report, account(seen, at.approved([report]))


async def test_a_naive_remedy_is_caught_doubling_where_the_real_one_does_not(tmp_path: Path, postgres: Cluster) -> None:
    async with bench(tmp_path / "state", postgres) as at:
        first, second = map(disable, at.flags_on()[:2])
        report, effects = await killed_after_the_effect(at, "real", first)
        assert (report.actions[0].outcome, report.actions[0].verified) == (Outcome.SUCCEEDED, True)
        assert effects == Effects(1)

        at.commands["remediate"] = NAIVE
        await at.fleet.replace("remediate")
        report, effects = await killed_after_the_effect(at, "naive", second)
        assert report.actions[0].outcome is Outcome.SUCCEEDED, "as far as it knows"
        (caught,) = effects.doubled
        assert caught.startswith("2 writes took effect under sha256:")
