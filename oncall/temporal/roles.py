"""What each worker role carries. Investigating never holds a write token, remediating never a read one."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from oncall.access.connect import Vault
from oncall.access.ledger import Ledger
from oncall.config import Config, ConnectConfig, load_approvers, load_policy
from oncall.model.access import Approvers
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.names import Queue
from oncall.trust.allowed_signers import parse_allowed_signers


class Role(StrEnum):
    """The worker roles of `worker.py --role`."""

    ORCHESTRATE = "orchestrate"
    INVESTIGATE = "investigate"
    REMEDIATE = "remediate"


QUEUE_OF = {
    Role.ORCHESTRATE: Queue.ORCHESTRATE,
    Role.INVESTIGATE: Queue.INVESTIGATE,
    Role.REMEDIATE: Queue.REMEDIATE,
}

Activities = list[Callable[..., Any]]


@asynccontextmanager
async def activities_of(role: Role, config: Config) -> AsyncIterator[Activities]:
    """The activities of a role, wired to this host's vault, ledger, keys and sources; closed afterwards."""
    if role is Role.ORCHESTRATE:
        from activities.follow import Follow

        yield [Follow().follow]
        return
    vault = Vault(config.connect.url, _token(config.connect, role))
    ledger = Ledger(config.state / "ledger.db")
    try:
        yield _investigate(config, vault, ledger) if role is Role.INVESTIGATE else _remediate(config, vault, ledger)
    finally:
        ledger.close()
        await vault.close()


def _investigate(config: Config, vault: Vault, ledger: Ledger) -> Activities:
    from activities.access import Access
    from activities.evidence import Evidence
    from activities.investigate import Investigate
    from activities.measure import Measure
    from activities.observe import Observe
    from activities.report import Report
    from activities.sources import Sources
    from activities.synthesize import Synthesize
    from activities.verify import Verify
    from activities.watch import Watch
    from oncall.access.read import ReadBroker
    from oncall.blobs.store import BlobStore
    from oncall.temporal.pools import Pool, pinned_keys

    policy, approvers = load_policy(config.policy), _approvers(config)
    broker = ReadBroker(vault, ledger, approvers, policy, config.references.read_set(("{region}",)))
    worker = Pool(config.state, config.tenant, "investigate").worker
    evidence = Evidence(BlobStore(config.state / "blobs"), pinned_keys(config.state))
    sources = Sources(config.sources)
    return [
        Access(broker).open_read_grant,
        Observe(config, policy, approvers, ledger, sources).survey,
        Investigate(config, broker, evidence, worker, sources).investigate,
        Synthesize(config, evidence, worker, sources).synthesize,
        Verify(config, broker, sources, evidence).verify,
        Measure(config, broker, sources).measure,
        Watch(config, broker, sources).observe,
        Report(config.state).write_report,
    ]


def _remediate(config: Config, vault: Vault, ledger: Ledger) -> Activities:
    # Imported here only, so that a process which investigates holds nothing that changes.
    from activities.remediate import Remediation
    from oncall.access.write import WriteBroker

    policy, approvers = load_policy(config.policy), _approvers(config)
    return [Remediation(WriteBroker(vault, ledger, approvers, policy), config.references).remediate]


def _approvers(config: Config) -> Approvers:
    """The list of those who may decide. Raises Terminal(BAD_CONFIG) for one that would refuse everybody at night."""
    approvers = load_approvers(config.approvers)
    try:
        parse_allowed_signers(approvers.allowed_signers)
    except Terminal as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{config.approvers}: {error.message}") from None
    return approvers


def _token(connect: ConnectConfig, role: Role) -> SecretStr:
    name = "read_token_file" if role is Role.INVESTIGATE else "write_token_file"
    path: Path | None = getattr(connect, name)
    if path is None:
        raise Terminal(ErrorCode.BAD_CONFIG, f"oncall.yaml: connect.{name} is needed by --role {role}")
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Terminal(ErrorCode.BAD_CONFIG, f"oncall.yaml: connect.{name}: cannot read {path}") from None
    if not token:
        raise Terminal(ErrorCode.BAD_CONFIG, f"oncall.yaml: connect.{name}: {path} is empty")
    return SecretStr(token)
