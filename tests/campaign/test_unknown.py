"""Contract: what nobody can establish is `unknown`, and only that.

The real remedies, behind wires that are cut when a write is under way, in a worker that is killed at that moment. Of
each kind one write has reached its target and one has not.

- while the target cannot be reached, the worker that comes after sees the same in both cases, and says `unknown` in
  both: `succeeded` would be a lie about one of them, and `failed` about the other;
- as soon as the target can be reached again, it reads back, does what is missing, and says what happened.
"""

import asyncio
from pathlib import Path

import pytest

from oncall.access.ledger import EntryKind, Ledger
from oncall.model.action import KillQueries, Outcome, Parameters
from oncall.model.report import IncidentReport
from tests.campaign.bench import FLAGS_REGION, Bench, bench, disable, given_up_sooner
from tests.campaign.effects import Effects, account
from tests.campaign.events import Event
from tests.campaign.judge import unknown
from tests.campaign.tails import LedgerTail, LinesTail, Tails, flag_write
from tests.remedies.postgres import Cluster

pytestmark = pytest.mark.timeout(150)


def kill(postgres_query: str, region: str, database: str, role: str) -> KillQueries:
    return KillQueries(region=region, database=database, role=role, query_id=postgres_query, min_age_s=1, max_count=1)


async def cut_while_writing(at: Bench, writes: dict[str, int]) -> None:
    """Kills the worker and cuts every wire once all the writes are under way and those that arrive have arrived."""
    async with asyncio.timeout(60):
        while {name: wire.under_way for name, wire in at.wires.items()} != writes:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.3)
    assert at.fleet.kill("remediate", keep_down=True)
    await at.fleet.gone(["remediate"])
    for wire in at.wires.values():
        await wire.cut()


def rows(at: Bench, report: IncidentReport) -> list[tuple[EntryKind, str]]:
    """What the ledger has about the report's action: kinds, and the outcome where there is one."""
    ledger = Ledger(at.state / "ledger.db")
    (write,) = (entry for entry in report.access if entry.kind == "write")
    found: list[tuple[EntryKind, str]] = [
        (entry.kind, str(entry.body.get("result", {}).get("outcome", "")))
        for entry in ledger.entries(write.request_digest)
        if entry.kind is not EntryKind.RELEASE
    ]
    ledger.close()
    return found


@pytest.mark.parametrize("reachable_again", [False, True])
async def test_a_write_under_way_when_the_worker_dies(
    tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch, reachable_again: bool
) -> None:
    monkeypatch.setattr("workflows.options.OPTIONS", given_up_sooner())
    async with (
        postgres.running(1) as reached_backend,
        postgres.running(1, "app_user", "users") as lost_backend,
        bench(tmp_path / "state", postgres) as at,
    ):
        reached_flag, lost_flag = at.flags_on()[:2]
        at.loses |= {lost_flag.key, "us-west-2"}
        seen: list[Event] = []
        tails = Tails(seen.append)
        tails.add(LedgerTail(at.state / "ledger.db"), LinesTail(at.audit, flag_write))
        tails.start()
        query_ids = [await postgres.query_id(backends[0]) for backends in (reached_backend, lost_backend)]
        await asyncio.sleep(1.1)
        parameters: dict[str, Parameters] = {
            "flag-reached": disable(reached_flag),
            "flag-lost": disable(lost_flag),
            "kill-reached": kill(query_ids[0], "us-east-1", "orders", "app_order"),
            "kill-lost": kill(query_ids[1], "us-west-2", "users", "app_user"),
        }
        for wire in at.wires.values():
            wire.withholds = True
        running = {name: asyncio.create_task(at.incident(name, one)) for name, one in parameters.items()}
        await cut_while_writing(at, {"flags": 2, "us-east-1": 1, "us-west-2": 1})
        truth = (
            at.store.get(reached_flag.key, FLAGS_REGION).enabled,
            at.store.get(lost_flag.key, FLAGS_REGION).enabled,
            await postgres.alive(reached_backend),
            await postgres.alive(lost_backend),
        )
        assert truth == (False, True, 0, 1), "one of each kind has arrived, and one has not"

        if reachable_again:
            for wire in at.wires.values():
                wire.mend()
        at.fleet.release("remediate")
        reports = {name: await task for name, task in running.items()}
        tails.stop()

        (outcomes,) = {tuple(entry.outcome for entry in report.actions) for report in reports.values()}
        # Of the flags; the backends were counted above, and a backend cannot be ended twice.
        assert account(seen, at.approved(reports.values())) == Effects(2 if reachable_again else 1)
        if reachable_again:
            assert outcomes == (Outcome.SUCCEEDED,)
            assert not at.store.get(lost_flag.key, FLAGS_REGION).enabled
            assert await postgres.alive(lost_backend) == 0
            return
        assert outcomes == (Outcome.UNKNOWN,)
        for kind in ("flag", "kill"):
            reached, lost = reports[f"{kind}-reached"], reports[f"{kind}-lost"]
            assert rows(at, reached) == rows(at, lost) == [(EntryKind.CLAIM, ""), (EntryKind.EFFECT_BEGIN, "")]
            assert reached.actions[0].detail == lost.actions[0].detail
            assert reached.actions[0].manual_steps
        for name, report in reports.items():
            wire = at.wires["flags" if name.startswith("flag") else report.actions[0].parameters["region"]]
            assert wire.refused, "the worker that came after did try to read back"
            asked = f"asked for {wire.refused} times, the target never answered"
            assert unknown(report.actions[0], seen, asked).shown
            assert unknown(report.actions[0], seen, None).shown is None
