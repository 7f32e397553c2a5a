"""All workflows of ours that run now, and one question to each of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from temporalio.client import Client

from oncall.model import names
from oncall.model.errors import ErrorCode, OncallError
from oncall.model.names import Queue
from oncall.temporal.boundary import RPC_TIMEOUT, boundary

AT_ONCE = 64
"""Workflows that are asked at the same time when all are."""

ALL = (names.SHIFT_WORKFLOW, names.INCIDENT_WORKFLOW)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Everywhere(Generic[Answer]):
    """What the running workflows answered, newest first, and the ids of those that did not answer."""

    answers: tuple[Answer, ...]
    silent: tuple[str, ...]


async def running(client: Client, *kinds: str) -> list[str]:
    """The ids of the workflows of these types that run now, newest first."""
    types = ", ".join(f"'{kind}'" for kind in kinds)
    # The queue as well: anybody who may start workflows can start one of this type where no worker of ours polls.
    query = f"WorkflowType IN ({types}) AND ExecutionStatus = 'Running' AND TaskQueue = '{Queue.ORCHESTRATE}'"
    async with boundary("the list of running workflows"):
        return [execution.id async for execution in client.list_workflows(query, rpc_timeout=RPC_TIMEOUT)]


async def everywhere(
    client: Client, ask: Callable[[Client, str], Awaitable[Answer]], *kinds: str
) -> Everywhere[Answer]:
    """`ask` of every running workflow of these types, AT_ONCE at a time; one that does not answer holds up no other.

    Raises Retryable(TEMPORAL_UNREACHABLE) only when they cannot even be listed.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def one(workflow_id: str) -> Answer | OncallError:
        async with places:
            try:
                return await ask(client, workflow_id)
            except OncallError as error:
                return error

    found = await running(client, *kinds)
    answers = await asyncio.gather(*(one(workflow_id) for workflow_id in found))
    return Everywhere(
        tuple(answer for answer in answers if not isinstance(answer, OncallError)),
        # One that has closed since it was listed is not silent.
        tuple(
            workflow_id
            for workflow_id, answer in zip(found, answers, strict=True)
            if isinstance(answer, OncallError) and answer.code is not ErrorCode.NOT_FOUND
        ),
    )
