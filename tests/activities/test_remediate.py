"""Contract: one approved action, one effect, and an honest word on what became of it.

With the real broker and ledger, a Connect server over HTTP, a flag server over HTTP and a real PostgreSQL.

- nothing is touched unless the broker accepts the signatures; its refusal is an outcome, not a failure;
- the ledger says "begun" before anything changes; an attempt that died is picked up by reading back;
- an outcome that nobody can establish is `unknown`; what has ended is never done again;
- no secret is in a result, a failure, the log or the ledger.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.remediate import Remediation
from estate import connect
from oncall.access.connect import Vault
from oncall.access.ledger import EntryKind, Ledger
from oncall.access.write import Claim, WriteBroker
from oncall.model.access import AccessKind, AccessRequest, Approvers, Intent
from oncall.model.action import ActionResult, DisableFlag, KillQueries, Outcome, Parameters, target_of
from oncall.model.alert import Severity
from oncall.model.policy import Policy, Rule, Verdict
from oncall.model.steps import RemediateIn
from oncall.trust import requests
from tests.people import Person, approvers
from tests.remedies.flag_server import FlagClient, FlagServer, serving
from tests.remedies.postgres import Cluster, started

FLAG_ITEM = "op://Infrastructure-Write/config-service"
DATABASE_ITEM = "op://Infrastructure-Write/prod-db-rwaccess/us-east-1"
REFERENCES = (
    *(f"{FLAG_ITEM}/{name}" for name in ("credential", "server")),
    *(f"{DATABASE_ITEM}/{name}" for name in ("username", "password", "server")),
)
POLICY = Policy(version=1, actions={name: Rule(verdict=Verdict.APPROVE) for name in ("disable_flag", "kill_queries")})
FLAG = DisableFlag(region="us-east-1", flag="reads-v2", expected_version=7)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Cluster]:
    """A running cluster."""
    with started() as cluster:
        yield cluster


class Dying(WriteBroker):
    """The real broker in a worker that dies at a moment, once, or whose ledger's rows turn out to be damaged.

    `dies` is `after_begin` or `before_end`, `breaks` is `begin` or `end`.
    """

    dies: str = ""
    breaks: str = ""

    def begin(self, claim: Claim, detail: dict[str, Any]) -> None:
        if self.breaks == "begin":
            damage(self._ledger, "claim")
        super().begin(claim, detail)
        if self.breaks == "end":
            damage(self._ledger, "claim")
        self._perhaps("after_begin")

    def end(self, claim: Claim, result: ActionResult) -> ActionResult:
        self._perhaps("before_end")
        return super().end(claim, result)

    def _perhaps(self, moment: str) -> None:
        if self.dies == moment:
            self.dies = ""
            raise RuntimeError("canary-died")


def damage(ledger: Ledger, kind: str) -> None:
    """Changes the row of that kind, which the triggers forbid, so that its hash is not its own any more."""
    with contextlib.closing(sqlite3.connect(ledger._path)) as connection, connection:
        connection.execute("DROP TRIGGER entries_no_update")
        assert connection.execute("UPDATE entries SET body = '{}' WHERE kind = ?", (kind,)).rowcount == 1


@dataclass
class World:
    """A worker's surroundings, and a person who may approve."""

    flags: FlagServer
    ledger: Ledger
    ledger_file: Path
    person: Person
    trusted: Approvers
    connect_url: str
    token: SecretStr
    secrets: list[str] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _vaults: list[Vault] = field(default_factory=list)

    def broker(self, policy: Policy = POLICY) -> Dying:
        """A worker's broker, freshly started: nothing cached, only the ledger remembers."""
        vault = Vault(self.connect_url, self.token)
        self._vaults.append(vault)
        return Dying(vault, self.ledger, self.trusted, policy, self.now)

    def task(self, parameters: Parameters, approved: bool = True, **changes: Any) -> RemediateIn:
        """A request for these parameters, decided by the person."""
        now = datetime.now(UTC)
        request = AccessRequest(
            kind=AccessKind.WRITE,
            tenant="test",
            incident_id="incident-1",
            requester=None,
            severity=Severity.HIGH,
            purpose="test",
            references=REFERENCES,
            intent=Intent(parameters=parameters, target=target_of(parameters)),
            evidence_digest="sha256:" + "0" * 64,
            policy_digest=requests.policy_digest(POLICY),
            ledger_id=self.ledger.ledger_id,
            nonce=f"{now.timestamp()}",
            not_before=now - timedelta(seconds=1),
            answer_by=now + timedelta(minutes=5),
            grant_expires_at=now + timedelta(minutes=30),
        ).model_copy(update=changes)
        decision = self.person.decide(requests.request_digest(request), approved)
        return RemediateIn(request=requests.request_text(request), decisions=(decision,))

    async def run(self, task: RemediateIn, broker: Dying | None = None) -> ActionResult:
        """One attempt in a worker of its own."""
        return await Remediation(broker or self.broker()).remediate(task)

    def kinds(self) -> list[str]:
        """What the ledger holds, releases apart."""
        return [entry.kind.value for entry in self.ledger.entries() if entry.kind is not EntryKind.RELEASE]

    def damage(self, kind: str) -> None:
        """Changes the row of that kind behind the ledger's back."""
        damage(self.ledger, kind)

    async def close(self) -> None:
        for vault in self._vaults:
            await vault.close()
        self.ledger.close()


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """The URL of an application on a free port."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def world(tmp_path: Path, postgres: Cluster, caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    """Everything a worker meets; at the end no secret may be in the log or the ledger."""
    caplog.set_level(logging.DEBUG)
    person = Person.create(tmp_path, "ada")
    async with serving(FlagServer()) as flags:
        items = (
            connect.Item("config-service", "SERVER", {"": {"credential": flags.credential, "server": flags.url}}),
            connect.Item(
                "prod-db-rwaccess",
                "DATABASE",
                {
                    "us-east-1": {
                        "username": "oncall_write",
                        "password": postgres.password,
                        "server": f"127.0.0.1:{postgres.port}",
                    }
                },
            ),
        )
        vaults = (connect.Vault("Infrastructure-Write", "write", "canary-connect-token", items),)
        async with served(connect.Connect(vaults, tmp_path / "requests", time.time()).app()) as url:
            ledger_file = tmp_path / "ledger.db"
            world = World(
                flags,
                Ledger(ledger_file),
                ledger_file,
                person,
                approvers(person),
                url,
                SecretStr("canary-connect-token"),
                secrets=[flags.credential, postgres.password, "canary-connect-token", "canary-died"],
            )
            yield world
            await world.close()
    # `caplog.text` would be that of the teardown.
    logged = "\n".join(caplog.handler.format(record) for record in caplog.get_records("call"))
    assert "in step remediate" not in logged or "test_remediate.py:" in logged
    held = logged.encode() + b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    for secret in world.secrets:
        assert secret.encode() not in held


async def test_a_flag_is_turned_off_once(world: World) -> None:
    task = world.task(FLAG)
    result = await world.run(task)
    assert (result.outcome, result.verified, result.error_code) == (Outcome.SUCCEEDED, True, None)
    assert (result.before["version"], result.after["version"], result.after["enabled"]) == (7, 8, False)
    assert result.secret_requests > 0
    assert world.kinds() == ["claim", "effect_begin", "effect_end"]
    assert result.request_digest == requests.request_digest(requests.parse_request(task.request))
    [write] = world.flags.writes
    assert write["idempotency_key"] == result.request_digest
    assert await world.run(task) == result, "what has ended is returned, not done again"
    assert len(world.flags.writes) == 1
    assert all(secret not in result.model_dump_json() for secret in world.secrets)


async def test_queries_are_ended(world: World, postgres: Cluster) -> None:
    async with postgres.running(2) as running:
        parameters = kill(await postgres.query_id(running[0]))
        await asyncio.sleep(1.1)
        result = await world.run(world.task(parameters))
        assert await postgres.alive(running) == 0
    assert (result.outcome, result.verified) == (Outcome.SUCCEEDED, True)
    assert (result.before["matching"], result.after["matching"], result.after["terminated"]) == (2, 0, 2)


async def test_nothing_to_end_is_skipped_without_a_beginning(world: World) -> None:
    result = await world.run(world.task(kill("42")))
    assert (result.outcome, result.verified) == (Outcome.SKIPPED, False)
    assert "nothing runs" in result.detail
    assert world.kinds() == ["claim", "effect_end"]


async def test_the_brokers_refusal_is_an_outcome_and_touches_nothing(world: World, tmp_path: Path) -> None:
    stranger = Person.create(tmp_path, "mallory")
    request = requests.parse_request(world.task(FLAG).request)
    digest = requests.request_digest(request)
    forged = RemediateIn(request=requests.request_text(request), decisions=(stranger.decide(digest, True),))
    other = world.task(FLAG.model_copy(update={"flag": "other"}))
    refused = {
        "not_an_approver": forged,
        "signature_refused": RemediateIn(request=requests.request_text(request), decisions=()),
        "request_mismatch": RemediateIn(request=other.request, decisions=world.task(FLAG).decisions),
        "ledger_foreign": world.task(FLAG, ledger_id="ledger-" + "0" * 32),
        "policy_forbids": world.task(FLAG, approved=False),
        "request_expired": world.task(FLAG, grant_expires_at=datetime.now(UTC) - timedelta(seconds=1)),
    }
    for code, task in refused.items():
        result = await world.run(task)
        if code == "request_expired":
            assert result.error_code in ("request_expired", "request_mismatch")
        else:
            assert result.error_code == code
        assert (result.outcome, result.verified) == (Outcome.REFUSED, False)
        assert result.detail
    assert world.kinds() == ["refusal"] * len(refused)
    assert not world.flags.raw_paths


async def test_bytes_that_are_no_write_request_are_terminal(world: World) -> None:
    good = world.task(FLAG)
    for text in ("", "{}", good.request + " ", good.request.replace('"high"', '"low", "x": 1')):
        with pytest.raises(ApplicationError) as caught:
            await world.run(RemediateIn(request=text, decisions=good.decisions))
        assert (caught.value.type, caught.value.non_retryable) == ("request_mismatch", True)
    assert not world.flags.raw_paths


async def test_a_reference_that_was_not_signed_is_refused(world: World) -> None:
    result = await world.run(world.task(FLAG, references=REFERENCES[2:]))
    assert (result.outcome, result.error_code) == (Outcome.REFUSED, "grant_scope")
    assert not world.flags.raw_paths


async def test_a_brake_before_the_beginning_is_refused(world: World) -> None:
    world.ledger.append(EntryKind.HALT, "", {})
    result = await world.run(world.task(FLAG))
    assert (result.outcome, result.error_code) == (Outcome.REFUSED, "halted")
    assert not world.flags.writes


async def test_a_target_that_has_changed_is_refused_without_a_beginning(world: World) -> None:
    world.flags.set(True, "m.okafor")
    result = await world.run(world.task(FLAG))
    assert (result.outcome, result.error_code) == (Outcome.REFUSED, "target_changed")
    assert EntryKind.EFFECT_BEGIN not in world.kinds()
    assert not world.flags.writes


async def test_a_target_that_changes_under_the_write_is_refused(world: World) -> None:
    world.flags.misbehaviour = ["conflict_before"]
    result = await world.run(world.task(FLAG))
    assert (result.outcome, result.error_code) == (Outcome.REFUSED, "target_changed")
    assert world.flags.enabled


async def test_a_target_that_is_away_is_retried_and_then_done_once(world: World) -> None:
    task = world.task(FLAG)
    world.flags.get_status = 503
    with pytest.raises(ApplicationError) as caught:
        await world.run(task)
    assert (caught.value.type, caught.value.non_retryable) == ("target_unreachable", False)
    world.flags.get_status = None
    assert (await world.run(task)).outcome is Outcome.SUCCEEDED
    assert world.flags.version == 8


@pytest.mark.parametrize("remember_keys", [True, False])
@pytest.mark.parametrize(("moment", "writes"), [("after_begin", 1), ("before_end", 1)])
async def test_a_flag_attempt_that_died_is_picked_up(
    world: World, moment: str, writes: int, remember_keys: bool
) -> None:
    world.flags.remember_keys = remember_keys
    task, broker = world.task(FLAG), world.broker()
    broker.dies = moment
    with pytest.raises(ApplicationError) as caught:
        await world.run(task, broker)
    assert (caught.value.type, caught.value.message) == ("internal", "RuntimeError in step remediate")
    assert world.kinds() == ["claim", "effect_begin"]
    assert len(world.flags.writes) == (0 if moment == "after_begin" else 1)
    result = await world.run(task)
    assert (result.outcome, result.verified) == (Outcome.SUCCEEDED, True)
    assert result.before["version"] == 7, "as the first attempt read it"
    assert len(world.flags.writes) == writes
    assert world.flags.version == 8
    assert world.kinds() == ["claim", "effect_begin", "effect_end"]


async def test_a_cancelled_write_whose_answer_never_came_is_read_back(world: World) -> None:
    world.flags.misbehaviour = ["slow"]
    task = world.task(FLAG)
    attempt = asyncio.create_task(world.run(task))
    while not world.flags.writes:
        await asyncio.sleep(0.01)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    result = await world.run(task)
    assert result.outcome is Outcome.SUCCEEDED
    assert len(world.flags.writes) == 1


async def test_picked_up_but_changed_by_somebody_else_is_unknown(world: World) -> None:
    task, broker = world.task(FLAG), world.broker()
    broker.dies = "after_begin"
    with pytest.raises(ApplicationError):
        await world.run(task, broker)
    world.flags.set(True, "m.okafor")
    result = await world.run(task)
    assert (result.outcome, result.error_code) == (Outcome.UNKNOWN, "target_changed")
    assert world.flags.enabled, "and nothing was written over it"


async def test_picked_up_after_the_grant_has_ended_is_unknown_and_writes_nothing(world: World) -> None:
    task, broker = world.task(FLAG), world.broker()
    broker.dies = "after_begin"
    with pytest.raises(ApplicationError):
        await world.run(task, broker)
    world.now = lambda: datetime.now(UTC) + timedelta(hours=1)
    result = await world.run(task)
    assert (result.outcome, result.error_code) == (Outcome.UNKNOWN, "grant_expired")
    assert not world.flags.writes


@pytest.mark.parametrize("newer", [POLICY.model_copy(update={"version": 2}), Policy(version=3)])
async def test_picked_up_under_a_newer_policy_is_unknown_and_writes_nothing(world: World, newer: Policy) -> None:
    task, broker = world.task(FLAG), world.broker()
    broker.dies = "before_end"
    with pytest.raises(ApplicationError):
        await world.run(task, broker)
    result = await world.run(task, world.broker(newer))
    assert (result.outcome, result.error_code, result.verified) == (Outcome.UNKNOWN, "policy_forbids", False)
    assert len(world.flags.writes) == 1, "the first attempt's"


async def test_what_began_is_unknown_when_its_approver_may_not_decide_any_more(world: World, tmp_path: Path) -> None:
    task, broker = world.task(FLAG), world.broker()
    broker.dies = "before_end"
    with pytest.raises(ApplicationError):
        await world.run(task, broker)
    world.trusted = approvers(Person.create(tmp_path, "grace"))
    result = await world.run(task)
    assert (result.outcome, result.error_code) == (Outcome.UNKNOWN, "not_an_approver")
    assert "an earlier attempt has begun" in result.detail
    assert not world.flags.enabled, "it did apply: refused would have been a lie"


@pytest.mark.parametrize("kind", ["claim", "effect_begin", "effect_end"])
async def test_a_broken_ledger_leaves_the_outcome_unknown(world: World, kind: str) -> None:
    task, broker = world.task(FLAG), world.broker()
    if kind == "effect_end":
        await world.run(task, broker)
    else:
        broker.dies = "before_end"
        with pytest.raises(ApplicationError):
            await world.run(task, broker)
    world.damage(kind)
    result = await world.run(task)
    assert (result.outcome, result.error_code) == (Outcome.UNKNOWN, "ledger_broken")
    assert len(world.flags.writes) == 1


@pytest.mark.parametrize(("moment", "writes"), [("begin", 0), ("end", 1)])
async def test_a_ledger_that_breaks_under_an_attempt_leaves_it_unknown(world: World, moment: str, writes: int) -> None:
    broker = world.broker()
    broker.breaks = moment
    result = await world.run(world.task(FLAG), broker)
    assert (result.outcome, result.error_code, result.verified) == (Outcome.UNKNOWN, "ledger_broken", False)
    assert len(world.flags.writes) == writes


async def test_an_attempt_that_died_among_the_kills_ends_nobody_new(world: World, postgres: Cluster) -> None:
    async with postgres.running(2) as approved:
        parameters = kill(await postgres.query_id(approved[0]), max_count=2)
        await asyncio.sleep(1.1)
        task, broker = world.task(parameters), world.broker()
        broker.dies = "after_begin"
        with pytest.raises(ApplicationError):
            await world.run(task, broker)
        assert await postgres.alive(approved) == 2
        async with postgres.running(1) as newcomer:
            await asyncio.sleep(1.1)
            result = await world.run(task)
            assert await postgres.alive(approved) == 0
            assert await postgres.alive(newcomer) == 1
    assert (result.outcome, result.verified) == (Outcome.FAILED, False)
    assert result.after["terminated"] == 2


async def test_a_lost_answer_that_cannot_be_read_back_is_unknown_and_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oncall.remedies.disable_flag.DisableFlagRemedy._read", _unreadable)
    world.flags.misbehaviour = ["drop_after"]
    task = world.task(FLAG)
    result = await world.run(task)
    assert (result.outcome, result.verified) == (Outcome.UNKNOWN, False)
    monkeypatch.undo()
    assert await world.run(task) == result


async def _unreadable(*_: object) -> None:
    return None


async def test_off_but_unseen_is_failed_and_stays_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    world.flags.clients = [FlagClient("order-1"), FlagClient("order-2", lag_s=None)]
    result = await world.run(world.task(FLAG))
    assert (result.outcome, result.verified, result.rolled_back) == (Outcome.FAILED, False, False)
    assert result.after["enabled"] is False
    assert not world.flags.enabled


async def test_harm_is_rolled_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    world.flags.clients_die_on_change = True
    task, broker = world.task(FLAG), world.broker()
    broker.dies = "before_end"
    with pytest.raises(ApplicationError):
        await world.run(task, broker)
    assert (world.flags.enabled, world.flags.version) == (True, 9)
    result = await world.run(task)
    assert (result.outcome, result.verified, result.rolled_back) == (Outcome.FAILED, False, True)
    assert (world.flags.enabled, world.flags.version) == (True, 9)


async def test_it_heartbeats_within_an_activity(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.heartbeat.INTERVAL_S", 0.05)
    world.flags.clients = [FlagClient("order-1", lag_s=0.6)]
    beats: list[tuple[Any, ...]] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    result = await environment.run(Remediation(world.broker()).remediate, world.task(FLAG))
    assert result.outcome is Outcome.SUCCEEDED
    assert len(beats) >= 5
    assert set(beats) == {()}, "a heartbeat carries nothing"


def kill(query_id: str, max_count: int = 10) -> KillQueries:
    """A kill on the test cluster."""
    return KillQueries(
        region="us-east-1", database="orders", role="app_order", query_id=query_id, min_age_s=1, max_count=max_count
    )


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits 0.8 s for clients, not 10."""
    defaults = ("oncall.remedies.disable_flag.DisableFlagRemedy.__init__.__defaults__", (0.8, 0.5))
    monkeypatch.setattr(*defaults)
