"""One incident on the embedded stack, from a calm estate to the closed report and the estate's own truth.

Only the estate knows which fault is on. It is asked for the truth after the incident has closed, never before.
"""

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oncall.cli import keys, sshkeys
from oncall.cli.answering import Ask, answer
from oncall.cli.duty import NOTICED_WITHIN_S, go_on_call, noticed
from oncall.cli.opening import make_opening
from oncall.cli.record import write_record
from oncall.cli.stack import Stack
from oncall.cli.story import Story
from oncall.cli.symptom import Entrances, Shares
from oncall.config import load_config
from oncall.model.action import Outcome
from oncall.model.alert import Severity
from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.incident import Ending, IncidentStatus, Phase
from oncall.model.report import IncidentReport
from oncall.temporal import incidents, shifts
from oncall.temporal.everywhere import ALL, running

APPROVER = "demo-approver"
ANOMALY = "elevated_errors"
FALSE_ALARM = "false_alarm"
CALM_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 240.0
COMPLETE_TIMEOUT_S = 60.0
_POLL_S = 0.3
_PATIENCE = 4


@dataclass(frozen=True)
class Rehearsed:
    """A closed incident and how it compares with the truth."""

    report: IncidentReport
    drill: dict[str, Any]
    good: bool


class DemoApprover:
    """A person who exists for one run: a key in a private folder, which goes when the run is over."""

    def __init__(self, state: Path) -> None:
        self._folder = state / f"approver-{secrets.token_hex(4)}"
        self.key = self._folder / "id_ed25519"
        self._approvers = state / "approvers"

    def enrol(self) -> None:
        """Makes the key, and makes its owner the only approver. Leftovers of a run that was killed go."""
        for leftover in self._folder.parent.glob("approver-*/id_ed25519*"):
            leftover.unlink(missing_ok=True)
        for name in (keys.SIGNERS, keys.PEOPLE):
            (self._approvers / name).unlink(missing_ok=True)
        self._folder.mkdir(mode=0o700)
        keys.add_approver(self._approvers, APPROVER, sshkeys.generate(self.key, APPROVER, False))

    def forget(self) -> None:
        """Deletes the key."""
        for path in (self.key, self.key.with_name(self.key.name + ".pub")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()


async def clear_leftovers(stack: Stack, story: Story) -> None:
    """Ends incidents that an earlier, killed run left in the database: nobody can answer for them any more."""
    for incident in await running(stack.client, *ALL):
        await stack.client.get_workflow_handle(incident).terminate("left behind by an earlier demo")
        story.say(f"ended {incident}, which an earlier run had left behind")


async def rehearse(stack: Stack, key: Path, scenario: str, seed: int, story: Story, ask: Ask) -> Rehearsed:
    """Runs one scenario. `ask` gives the person's yes or no, which is then signed with `key`.

    Raises OncallError when a part of the stack fails; a bad ending is a result, not an error.
    """
    entrances = Entrances(stack.telemetry)
    story.chapter("A calm estate")
    story.say("waiting for a baseline: what normal looks like")
    calm = await entrances.calm(CALM_TIMEOUT_S)
    story.say(f"calm: {_shares(calm)}")
    await go_on_call(stack, key, story, ask)
    story.chapter(f"Something goes wrong · scenario {scenario} · seed {seed}")
    fault = await stack.estate.inject(scenario, seed)
    injected = time.monotonic()
    try:
        opened = await _by_itself(stack, story) if scenario != FALSE_ALARM else None
        detection_s = time.monotonic() - injected if opened else None
        runaways = await stack.estate.runaways()
        flags_on = await stack.estate.flags()
        started = time.monotonic()
        opened = opened or await _by_hand(stack, key, story)
        _announce(stack, opened, detection_s, story)
        await _follow(stack, opened.incident_id, key, story, ask)
        seconds = time.monotonic() - started
        # The phase is `closed` before the report is written: only the workflow's result comes after everything.
        report = await incidents.result(stack.client, opened.incident_id, opened.run_id, COMPLETE_TIMEOUT_S)
        story.ending(report)
        history = await incidents.history_json(stack.client, opened.incident_id, opened.run_id)
        report = write_record(stack.state, report, history)
        expected = await stack.estate.truth(fault)
        disabled = _switched_off(flags_on, await stack.estate.flags())
        left = await stack.estate.runaways()
    finally:
        with contextlib.suppress(Retryable, Terminal):
            await stack.estate.heal(fault)
    drill = _score(report, scenario, seed, expected, disabled)
    drill |= {"detection_s": None if detection_s is None else round(detection_s, 2)}
    drill |= {"runaways": {"before": runaways, "after": left}, "seconds": round(seconds, 2)}
    good = report.status == (Ending.NO_FAULT if scenario == FALSE_ALARM else Ending.RESOLVED)
    return Rehearsed(report, drill, good)


def _shares(shares: Shares) -> str:
    parts = (f"{service} {region} {share:.0f} %" for (region, service), share in sorted(shares.items()))
    return "failed requests: " + ", ".join(parts)


async def _by_itself(stack: Stack, story: Story) -> incidents.Opened | None:
    """The incident that the shift opens when it notices."""
    found = await noticed(stack)
    if found is None:
        story.say(f"the shift noticed nothing within {NOTICED_WITHIN_S:.0f} s; opening an incident by hand", "yellow")
        return None
    return incidents.Opened(found.incident_id, found.incident_id, found.run_id, joined=False)


async def _by_hand(stack: Stack, key: Path, story: Story) -> incidents.Opened:
    # No place and no scenario: the alert must not tell the swarm where to look. The run's own label keeps it from
    # joining an incident of an earlier run in the same database.
    config = load_config(stack.config)
    message = "users see more errors than usual"
    labels = {"run": secrets.token_hex(4)}
    grant = await shifts.grant(stack.client)
    opening = make_opening(config, ANOMALY, Severity.CRITICAL, message, None, None, key, labels, grant)
    story.say(f"somebody opens an incident by hand: {ANOMALY}, critical, no place given")
    return await incidents.open_incident(stack.client, opening)


def _announce(stack: Stack, opened: incidents.Opened, detection_s: float | None, story: Story) -> None:
    if detection_s is not None:
        story.say(f"the shift noticed by itself {detection_s:.1f} s after the fault, and opened an incident", "red")
    story.chapter(f"Incident {opened.incident_id}")
    story.say(f"watch it at {ui_url(stack, opened.workflow_id, opened.run_id)}")


def ui_url(stack: Stack, workflow_id: str, run_id: str) -> str:
    """The incident in the Temporal UI."""
    return f"{stack.server.ui_url}/namespaces/default/workflows/{workflow_id}/{run_id}/history"


async def _follow(stack: Stack, incident_id: str, key: Path, story: Story, ask: Ask) -> None:
    """Shows phases and progress and answers what is asked, until the incident has closed."""
    answered: set[str] = set()
    told = False
    deadline = time.monotonic() + CLOSE_TIMEOUT_S
    while True:
        status = await _status(stack, incident_id)
        story.agents(status.coverage)
        story.phase(status.phase)
        if not told and status.summary:
            told = True
            story.diagnosis(await incidents.report(stack.client, incident_id))
        if status.phase is Phase.CLOSED:
            return
        if set(status.waiting_for) - answered:
            waited = time.monotonic()
            answered |= await answer(stack, incident_id, key, story, ask, answered)
            deadline += time.monotonic() - waited  # a person may think as long as they like
        if time.monotonic() > deadline:
            message = f"incident {incident_id} did not close within {CLOSE_TIMEOUT_S:.0f} s; see {stack.state / 'logs'}"
            raise Terminal(ErrorCode.INTERNAL, message)
        await asyncio.sleep(_POLL_S)


async def _status(stack: Stack, incident_id: str) -> IncidentStatus:
    """One look; a query that a busy worker was too slow for is asked again."""
    for _ in range(_PATIENCE):
        with contextlib.suppress(Retryable):
            return await incidents.status(stack.client, incident_id)
    return await incidents.status(stack.client, incident_id)


def _switched_off(before: dict[str, dict[str, bool]], after: dict[str, dict[str, bool]]) -> list[dict[str, str]]:
    """The flags that were on during the incident and are off after it."""
    return [
        {"region": region, "flag": flag}
        for region, flags in before.items()
        for flag, on in flags.items()
        if on and not after.get(region, {}).get(flag, on)
    ]


def _score(
    report: IncidentReport, scenario: str, seed: int, expected: dict[str, Any], disabled: list[dict[str, str]]
) -> dict[str, Any]:
    cause = report.diagnosis.root_cause if report.diagnosis else None
    found = {"region": cause.region, "service": cause.service, "specialist": cause.specialist.value} if cause else None
    place = {name: expected.get(name) for name in ("region", "service", "specialist")}
    actions = [action.type for action in report.actions]
    if scenario == FALSE_ALARM:
        correct = found is None and report.status == Ending.NO_FAULT
        remedied = not actions and not disabled
    else:
        correct = found == place
        wanted = [{"region": expected["region"], "flag": expected["flag"]}]
        remedied = disabled == wanted and all(a.outcome is Outcome.SUCCEEDED for a in report.actions)
    return {
        "scenario": scenario,
        "seed": seed,
        "expected": place,
        "diagnosed": found,
        "correct": correct,
        "remedied": remedied,
        "recovered": report.verification.recovered if report.verification else None,
        "actions": actions,
        "flags_disabled": disabled,
    }
