"""A real remediate worker with its real targets, in an incident whose other steps are scripted: an effect in seconds.

Real: the worker as a process, the Temporal server, the broker and its ledger, Connect, the flag service with its audit
log, and PostgreSQL. Scripted: what is diagnosed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.implements import implements
from estate import connect
from estate.flag_service import FlagService
from estate.flags import Flag, FlagStore
from estate.flagset import flag_specs
from estate.topology import instance_name
from oncall.access.ledger import Ledger
from oncall.cli import keys
from oncall.cli.settings import embedded_server, environment
from oncall.cli.stack import write_config
from oncall.config import load_policy
from oncall.model import names, steps
from oncall.model.access import AccessKind, AccessRequest
from oncall.model.action import Action, DisableFlag, KillQueries, Parameters, Risk, target_of
from oncall.model.incident import PendingApproval
from oncall.model.names import Queue
from oncall.model.report import IncidentReport
from oncall.temporal.client import connect as connect_temporal
from oncall.temporal.embedded import EmbeddedServer
from oncall.temporal.search import ensure_search_attributes
from oncall.trust.requests import parse_request
from tests.campaign import fleet as fleets
from tests.campaign.fleet import Commands, Fleet
from tests.campaign.wire import HTTP, POSTGRES, Wire
from tests.people import Person, approvers
from tests.remedies.postgres import Cluster
from tests.workflows.scripted import Script, opening
from workflows.incident import IncidentWorkflow

FLAGS_REGION = "eu-west-1"
GIVEN_UP_S = 25.0
"""How long a remedy is tried here; in the product five minutes. Longer than a dead worker takes to be noticed."""

_CREDENTIAL, _TOKEN = "canary-flag-admin", "canary-connect-token"
_CLOSE_S = 90.0


@dataclass
class Diagnosed(Script):
    """Scripted steps, but for the actions of each incident and the ledger that the real broker has."""

    ledger_id: str = ""
    proposed: dict[str, tuple[Action, ...]] = field(default_factory=dict)

    @implements(steps.SURVEY)
    async def survey(self, task: steps.SurveyIn) -> steps.Surveyed:
        found = await super().survey(task)
        return found.model_copy(update={"ledger_id": self.ledger_id})

    @implements(steps.SYNTHESIZE)
    async def synthesize(self, task: steps.SynthesizeIn) -> steps.Synthesis:
        found = await super().synthesize(task)
        return found.model_copy(update={"actions": self.proposed[task.incident_id]})


@dataclass
class Bench:
    """What the tests work with. `wires` lead to the flag service (`flags`) and to PostgreSQL, one per region; `loses`
    names the flags and the regions whose writes do not reach their target."""

    client: Client
    state: Path
    fleet: Fleet
    commands: Commands
    person: Person
    script: Diagnosed
    store: FlagStore
    audit: Path
    wires: Mapping[str, Wire]
    loses: set[str]
    requests: dict[str, AccessRequest] = field(default_factory=dict)

    def flags_on(self) -> list[Flag]:
        """Flags that can be turned off, each of another service."""
        return [flag for flag in self.store.select(FLAGS_REGION) if flag.enabled]

    def approved(self, reports: Iterable[IncidentReport]) -> dict[str, AccessRequest]:
        """The WRITE requests that the person approved in these incidents, by digest."""
        return {
            entry.request_digest: self.requests[entry.request_digest]
            for report in reports
            for entry in report.access
            if entry.kind is AccessKind.WRITE
        }

    async def incident(self, name: str, parameters: Parameters) -> IncidentReport:
        """The report of an incident whose one action the person approves."""
        self.script.proposed[name] = (_action(parameters),)
        handle = await self.client.start_workflow(
            IncidentWorkflow.run, opening(name), id=name, task_queue=Queue.ORCHESTRATE
        )
        answered: set[str] = set()
        deadline = time.monotonic() + _CLOSE_S
        while len(answered) < 2:
            asked = await handle.query(names.QUERY_APPROVALS, result_type=list[PendingApproval])
            for pending in asked:
                if pending.request_digest not in answered:
                    self.requests[pending.request_digest] = parse_request(pending.request)
                    await handle.signal(names.SIGNAL_DECIDE, self.person.decide(pending.request_digest, True))
                    answered.add(pending.request_digest)
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        async with asyncio.timeout(_CLOSE_S):
            return await handle.result()


def disable(flag: Flag) -> DisableFlag:
    """The parameters that turn it off."""
    return DisableFlag(region=flag.region, flag=flag.key, expected_version=flag.version)


def _action(parameters: Parameters) -> Action:
    base, parts = "op://Infrastructure-Write/config-service", ["credential", "server"]
    if isinstance(parameters, KillQueries):
        base = f"op://Infrastructure-Write/prod-db-rwaccess/{parameters.region}"
        parts = ["username", "password", "server"]
    return Action(
        action_id=f"act-1-{parameters.type}",
        parameters=parameters,
        target=target_of(parameters),
        risk=Risk.LOW,
        reversible=True,
        references=tuple(f"{base}/{part}" for part in parts),
        reason="scripted",
        observations=("obs-1",),
        manual_steps=("by hand",),
    )


@contextlib.asynccontextmanager
async def bench(state: Path, postgres: Cluster) -> AsyncIterator[Bench]:
    """A bench in `state`, with wires that are whole until somebody cuts them."""
    async with contextlib.AsyncExitStack() as stack:
        audit = state / "flags-audit.jsonl"
        state.mkdir()
        store = FlagStore(flag_specs(1), 1, audit)
        flags = await stack.enter_async_context(_served(FlagService(store, _CREDENTIAL).app()))
        ways = {"flags": (_port(flags), HTTP), **dict.fromkeys(("us-east-1", "us-west-2"), (postgres.port, POSTGRES))}
        loses: set[str] = set()
        wires = {
            name: await stack.enter_async_context(Wire(port, protocol, _loser(name, loses)))
            for name, (port, protocol) in ways.items()
        }
        vault = connect.Vault("Infrastructure-Write", "connect-write", _TOKEN, _items(wires, postgres))
        vaults = connect.Connect((vault,), state / "connect-requests.jsonl", time.time())
        token = state / "token"
        token.write_text(_TOKEN)
        info = {
            "connect": await stack.enter_async_context(_served(vaults.app())),
            "connect_read_token_file": str(token),
            "connect_write_token_file": str(token),
            "telemetry": str(state / "telemetry"),
            "instances": "http://127.0.0.1:1",
        }
        config = write_config(state, info)
        person = Person.create(state, "alice")
        keys.add_approver(state / "approvers", person.name, person.public)
        ledger = Ledger(state / "ledger.db")
        script = Diagnosed(
            approvers(person), policy=load_policy(config.with_name("policy.yaml")), recovered=False, improved=False
        )
        script.ledger_id = ledger.ledger_id
        ledger.close()
        server = await EmbeddedServer.start(state, 0, 0)
        stack.push_async_callback(server.stop)
        stack.enter_context(environment(embedded_server(server.address)))
        client = await connect_temporal()
        await ensure_search_attributes(client)
        for queue in (Queue.ORCHESTRATE, Queue.INVESTIGATE):
            worker = Worker(
                client,
                task_queue=queue,
                workflows=[IncidentWorkflow] if queue is Queue.ORCHESTRATE else [],
                activities=script.on(queue),
                # Not sandboxed, so that the workflow sees the shorter time that a test gives a remedy.
                workflow_runner=UnsandboxedWorkflowRunner(),
            )
            await stack.enter_async_context(worker)
        commands = fleets.real()
        remediate = fleets.worker("remediate", commands, config.parent, state / "logs")
        fleet = await stack.enter_async_context(Fleet([remediate]))
        polling = asyncio.create_task(_poll_flags(flags, store))
        stack.callback(polling.cancel)
        await fleet.ready(60)
        yield Bench(client, state, fleet, commands, person, script, store, audit, wires, loses)


def given_up_sooner() -> dict[str, Any]:
    """`workflows.options.OPTIONS` with less time for a remedy."""
    from workflows.options import OPTIONS

    shorter = replace(OPTIONS[steps.REMEDIATE.name], schedule_to_close=timedelta(seconds=GIVEN_UP_S))
    return {**OPTIONS, steps.REMEDIATE.name: shorter}


def _items(wires: Mapping[str, Wire], postgres: Cluster) -> tuple[connect.Item, ...]:
    flags = {"credential": _CREDENTIAL, "server": f"http://127.0.0.1:{wires['flags'].port}"}
    logins = {
        region: {"username": "oncall_write", "password": postgres.password, "server": f"127.0.0.1:{wire.port}"}
        for region, wire in wires.items()
        if region != "flags"
    }
    return (
        connect.Item("config-service", "API_CREDENTIAL", {"": flags}),
        connect.Item("prod-db-rwaccess", "DATABASE", logins),
    )


def _loser(way: str, loses: set[str]) -> Callable[[bytes], bool]:
    """Whether a write on this way is to be lost: all of them, or that of a flag."""
    return lambda chunk: way in loses or any(f"/flags/{flag}?".encode() in chunk for flag in loses)


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextlib.asynccontextmanager
async def _served(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _poll_flags(url: str, store: FlagStore) -> None:
    """The services that read the flags: without a client that has seen it, a flag's being off proves nothing."""
    specs = flag_specs(1)
    services = sorted({specs[flag.key].service for flag in store.select(FLAGS_REGION)})
    etags: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=url) as client:
        while True:
            for service in services:
                context = {"targetingKey": instance_name(service), "region": FLAGS_REGION, "service": service}
                headers = {"If-None-Match": etags[service]} if service in etags else {}
                answer = await client.post("/ofrep/v1/evaluate/flags", json={"context": context}, headers=headers)
                etags[service] = answer.headers["ETag"]
            await asyncio.sleep(0.2)
