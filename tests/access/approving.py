"""What the broker tests share: a policy, approvers with real SSH keys, signed requests, a vault behind real HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from oncall.access.connect import Vault
from oncall.access.ledger import EntryKind, Ledger
from oncall.access.read import ReadBroker
from oncall.access.write import WriteBroker
from oncall.model.access import NAMESPACE_DECISION, AccessKind, AccessRequest, Approvers, Decision, Intent
from oncall.model.action import DisableFlag, Risk, target_of
from oncall.model.alert import Severity
from oncall.model.policy import Policy, Rule, Verdict
from oncall.trust.requests import decision_bytes, policy_digest, request_digest
from tests.access.connect_server import TOKEN, ConnectServer
from tests.trust.ssh_keys import SshKey, approvers, ssh_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "secret-canary-098f6bcd4621d373"
READ_USER = "op://Infrastructure/db/us-east-1/username"
READ_PASSWORD = "op://Infrastructure/db/us-east-1/password"
READ_KEY = "op://Infrastructure/k8s/credential"
READ_SET = ("op://Infrastructure/db/{region}/username", "op://Infrastructure/db/{region}/password", READ_KEY)
WRITE_SERVER = "op://Infrastructure-Write/config-service/server"
WRITE_KEY = "op://Infrastructure-Write/config-service/credential"

POLICY = Policy(
    version=1,
    read=Verdict.APPROVE,
    max_grant_s=3600,
    actions={
        "disable_flag": Rule(verdict=Verdict.APPROVE, risk=Risk.LOW),
        "kill_queries": Rule(verdict=Verdict.FORBIDDEN),
    },
)
FLAG = DisableFlag(region="us-east-1", flag="slow-reads", expected_version=3)
INTENT = Intent(parameters=FLAG, target=target_of(FLAG))


@dataclass
class Clock:
    """A clock that the test sets."""

    now: datetime = NOW + timedelta(minutes=1)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class World:
    """One worker's surroundings."""

    server: ConnectServer
    vault: Vault
    ledger: Ledger
    clock: Clock
    people: Approvers

    def reader(self, **changes: Any) -> ReadBroker:
        settings: dict[str, Any] = {"approvers": self.people, "policy": POLICY, "references": READ_SET}
        return ReadBroker(self.vault, self.ledger, clock=self.clock, **{**settings, **changes})

    def writer(self, **changes: Any) -> WriteBroker:
        settings: dict[str, Any] = {"approvers": self.people, "policy": POLICY}
        return WriteBroker(self.vault, self.ledger, clock=self.clock, **{**settings, **changes})

    def read_request(self, **changes: Any) -> AccessRequest:
        fields = {"kind": AccessKind.READ, "references": (READ_USER, READ_PASSWORD, READ_KEY), "intent": None}
        return self._request({**fields, **changes})

    def write_request(self, **changes: Any) -> AccessRequest:
        fields = {"kind": AccessKind.WRITE, "references": (WRITE_SERVER, WRITE_KEY), "intent": INTENT}
        return self._request({**fields, **changes})

    def _request(self, fields: dict[str, Any]) -> AccessRequest:
        shared: dict[str, Any] = {
            "tenant": "oncall",
            "incident_id": "inc-1",
            "requester": None,
            "severity": Severity.HIGH,
            "purpose": "find it",
            "policy_digest": policy_digest(POLICY),
            "ledger_id": self.ledger.ledger_id,
            "nonce": "1",
            "not_before": NOW,
            "answer_by": NOW + timedelta(minutes=30),
            "grant_expires_at": NOW + timedelta(hours=1),
        }
        return AccessRequest(**{**shared, **fields})

    def kinds(self) -> list[str]:
        return [str(entry.kind) for entry in self.ledger.entries()]

    def refusals(self) -> list[str]:
        return [str(entry.body["code"]) for entry in self.ledger.entries(kinds=(EntryKind.REFUSAL,))]


def alice() -> SshKey:
    return ssh_key("alice")


def decide(
    request: AccessRequest, key: SshKey | None = None, namespace: str = NAMESPACE_DECISION, **changes: Any
) -> Decision:
    """A signed yes, one minute after the request, unless `changes` say otherwise (before signing)."""
    fields: dict[str, Any] = {
        "request_digest": request_digest(request),
        "approved": True,
        "decided_at": NOW + timedelta(minutes=1),
    }
    unsigned = Decision(**{**fields, **changes})
    return unsigned.model_copy(update={"signature": (key or alice()).sign(decision_bytes(unsigned), namespace)})


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    """A Connect server with both vaults, a ledger in `folder`, and alice as the approver."""
    vaults = {
        "Infrastructure": {
            "db": {"us-east-1": {"username": "ro", "password": SECRET + "-read"}},
            "k8s": {"": {"credential": SECRET + "-k8s"}},
        },
        "Infrastructure-Write": {"config-service": {"": {"server": "http://flags", "credential": SECRET + "-write"}}},
    }
    async with ConnectServer(vaults).running() as server:
        vault, ledger = Vault(server.url, SecretStr(TOKEN)), Ledger(folder / "ledger.db")
        try:
            yield World(server, vault, ledger, Clock(), approvers(("alice", alice())))
        finally:
            await vault.close()
            ledger.close()
