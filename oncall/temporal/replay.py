"""Re-executes a recorded history against today's workflow code."""

import re
from dataclasses import dataclass, replace

from google.protobuf.json_format import ParseError
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from oncall.model.errors import ErrorCode, Terminal
from oncall.temporal.sandbox import runner
from workflows.incident import IncidentWorkflow
from workflows.shift import ShiftWorkflow

WORKFLOWS = (ShiftWorkflow, IncidentWorkflow)
_SENTENCE = re.compile(r'message: "(?:\[TMPRL\d+\] )?([^"]+)"')


@dataclass(frozen=True)
class Replayed:
    """Whether the code takes the recorded decisions again; `divergence` says where it does not."""

    identical: bool
    events: int
    divergence: str | None


async def replay(history_json: str) -> Replayed:
    """Replay one history (Temporal's JSON). Raises Terminal(BAD_CONFIG) when the text is no history."""
    try:
        history = WorkflowHistory.from_json("replayed", history_json)
        if not history.events:
            raise ValueError
        # The workflow compares its own id with the one that its opening was signed for.
        started = history.events[0].workflow_execution_started_event_attributes
        history = replace(history, workflow_id=started.workflow_id or "replayed")
    except (ValueError, ParseError, TypeError, AttributeError, KeyError):
        raise Terminal(ErrorCode.BAD_CONFIG, "not a Temporal history: expected JSON with a list of events") from None
    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=pydantic_data_converter,
        workflow_runner=runner(),
    )
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    failure = result.replay_failure
    return Replayed(failure is None, len(history.events), None if failure is None else _readable(str(failure)))


def _readable(failure: str) -> str:
    """The sentence inside the core's dump of a failure: which recorded event met which other command."""
    sentence = _SENTENCE.search(failure)
    return sentence[1] if sentence else failure
