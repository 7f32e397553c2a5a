"""`on-call start|status|stop`: a team's time on call."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import click
from temporalio.client import Client

from oncall.cli import loop, settings, sshkeys
from oncall.cli.exits import ANSWER_IS_NO, DONE, UNREACHABLE
from oncall.cli.output import Output, json_option, note_silent
from oncall.cli.request_view import read_pending, view
from oncall.config import Config
from oncall.model import names
from oncall.model.access import NAMESPACE_SHIFT, NAMESPACE_STOP
from oncall.model.incident import PendingApproval
from oncall.model.names import shift_workflow_id
from oncall.model.shift import FollowedIncident, ShiftOpening, ShiftPhase, ShiftStatus, StopOrder
from oncall.rules.text import plain
from oncall.temporal import gates, shifts
from oncall.temporal.client import connect
from oncall.temporal.everywhere import Everywhere, everywhere
from oncall.trust.requests import shift_bytes, stop_bytes

TEAM = "primary"
ASKED_WITHIN_S = 15.0
STOPPED_WITHIN_S = 30.0
_POLL_S = 0.2


def _team(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", value):
        raise click.BadParameter("a team is up to 40 lower-case letters, digits and dashes")
    return value


_team_option = click.option("--team", default=TEAM, show_default=True, callback=_team, help="Whose shift.")
_key_option = click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The SSH key to sign with.")


@click.group("on-call")
def on_call() -> None:
    """A team's time on call: the swarm watches under one READ approval and opens incidents by itself.

    \b
    Example:
      oncall on-call start
    """


def make_opening(config: Config, team: str, key: Path | None) -> ShiftOpening:
    """A shift's opening with this configuration's rhythm, signed with `key` or by nobody.

    Raises Terminal(BAD_CONFIG) when the key cannot sign.
    """
    shift = config.shift
    opening = ShiftOpening(
        shift_id=shift_workflow_id(team),
        tenant=config.tenant,
        team=team,
        opened_at=datetime.now(UTC),
        interval_s=shift.interval_s,
        answer_by_s=shift.answer_by_s,
        grant_s=shift.grant_s,
        renew_before_s=shift.renew_before_s,
        max_incidents=shift.max_incidents,
        clear_s=shift.clear_s,
        incident_answer_by_s=config.incident.answer_by_s,
        incident_grant_s=config.incident.grant_s,
    )
    if key is None:
        return opening
    return opening.model_copy(update={"signature": sshkeys.sign(key, shift_bytes(opening), NAMESPACE_SHIFT)})


@on_call.command()
@_team_option
@_key_option
@json_option
def start(team: str, key: Path | None, as_json: bool) -> int:
    """Goes on call: asks for READ access once, then watches. Starting again joins the shift that runs.

    \b
    Example:
      oncall on-call start --team payments
    """
    out = Output(as_json)
    stack = settings.adopt(out.note)
    opening = make_opening(settings.require_config(), team, settings.own_key(key, stack, out.note))

    async def begin() -> tuple[shifts.Started, ShiftStatus, tuple[PendingApproval, ...]]:
        client = await connect()
        started = await shifts.start(client, opening)
        now = await asked(client, opening.shift_id)
        return started, now, await gates.approvals(client, opening.shift_id) if now.waiting_for else ()

    started, now, waiting = loop.run(begin())
    out.emit({**now.model_dump(mode="json"), "already": started.already})
    for pending in waiting:
        out.show(view(pending, read_pending(pending)))
    out.show(*lines(now))
    if started.already:
        out.note(f"team {team} was on call already")
    if waiting:
        out.note(f"next: `oncall approve {waiting[0].request_id}`, or `oncall deny …`")
    return ANSWER_IS_NO if now.phase is ShiftPhase.OFF else DONE


async def asked(client: Client, shift_id: str) -> ShiftStatus:
    """The shift's status once it waits for an answer, watches, or is off again.

    One that gets nowhere within ASKED_WITHIN_S is returned as it is.
    """
    deadline = asyncio.get_running_loop().time() + ASKED_WITHIN_S
    while True:
        now = await shifts.status(client, shift_id)
        late = asyncio.get_running_loop().time() >= deadline
        if now.waiting_for or now.phase is not ShiftPhase.AWAITING_READ_APPROVAL or late:
            return now
        await asyncio.sleep(_POLL_S)


@on_call.command()
@click.option("--team", callback=_team, help="Whose shift; every shift that is on when not given.")
@json_option
def status(team: str | None, as_json: bool) -> int:
    """What is watched, the last look, the grant with its countdown, and what is open.

    \b
    Example:
      oncall on-call status
    """
    out = Output(as_json)
    settings.adopt(out.note)

    async def look() -> tuple[Everywhere[ShiftStatus], ShiftStatus | None]:
        client = await connect()
        if team is not None:
            return Everywhere((await shifts.status(client, shift_workflow_id(team)),), ()), None
        looked = await everywhere(client, shifts.status, names.SHIFT_WORKFLOW)
        return looked, None if looked.answers or looked.silent else await shifts.latest(client)

    looked, last = loop.run(look())
    note_silent(out, looked.silent)
    every = {"shifts": [one.model_dump(mode="json") for one in looked.answers], "silent": list(looked.silent)}
    out.emit(looked.answers[0] if team is not None else every)
    for one in looked.answers:
        out.show(*lines(one))
    if looked.silent and not looked.answers:
        return UNREACHABLE
    if not looked.answers:
        out.show("nobody is on call; `oncall on-call start` begins a shift", *(lines(last) if last else ()))
    return DONE


@on_call.command()
@_team_option
@click.option("--reason", default="", help="Why; signed and kept.")
@_key_option
@json_option
def stop(team: str, reason: str, key: Path | None, as_json: bool) -> int:
    """Ends a shift and hands over what is open: its incidents go on, and their questions still wait for an answer.

    \b
    Example:
      oncall on-call stop --reason "end of the week"
    """
    out = Output(as_json)
    stack = settings.adopt(out.note)
    chosen = settings.signing_key(key, stack, out.note)
    shift_id = shift_workflow_id(team)

    async def end() -> ShiftStatus:
        return await go_off(await connect(), shift_id, chosen, reason)

    now = loop.run(end())
    out.emit(now)
    out.show(*lines(now))
    if now.phase is not ShiftPhase.OFF:
        out.note(f"the shift goes on: {now.last_refusal or 'it has not ended yet'}")
        return ANSWER_IS_NO
    return DONE


async def go_off(client: Client, shift_id: str, key: Path, reason: str) -> ShiftStatus:
    """End a shift with an order that `key` signs: its last status, or how it stands when it goes on."""
    before = await shifts.status(client, shift_id)
    if before.phase is ShiftPhase.OFF:
        return before
    order = StopOrder(shift_id=shift_id, run_id=before.run_id, reason=reason, ordered_at=datetime.now(UTC))
    signature = await asyncio.to_thread(sshkeys.sign, key, stop_bytes(order), NAMESPACE_STOP)
    await shifts.stop(client, order.model_copy(update={"signature": signature}))
    return await _ended(client, shift_id, before)


async def _ended(client: Client, shift_id: str, before: ShiftStatus) -> ShiftStatus:
    deadline = asyncio.get_running_loop().time() + STOPPED_WITHIN_S
    while True:
        last = await shifts.off(client, shift_id, _POLL_S)
        if last is not None:
            return last
        now = await shifts.status(client, shift_id)
        if now.refused_orders > before.refused_orders or asyncio.get_running_loop().time() > deadline:
            return now


def lines(one: ShiftStatus) -> list[str]:
    """A shift in lines for people; nothing in them that a terminal would interpret."""
    now = datetime.now(UTC)
    by = f", started by {one.requester}" if one.requester else ""
    found = [f"team {one.team}: {one.phase.replace('_', ' ')}{by} (since {one.started_at:%Y-%m-%d %H:%M:%S} UTC)"]
    if one.ended:
        found.append(f"  ended      {one.ended}")
    if look := one.last_look:
        blind = f", {len(look.blind)} out of sight: {', '.join(look.blind[:3])}" if look.blind else ""
        age = (now - look.as_of).total_seconds()
        found.append(f"  watches    {look.services} services every {one.interval_s:g} s; {one.looks} looks so far")
        found.append(f"  last look  {age:.0f} s ago, {look.groups} problems in sight{blind}")
    if one.blind_since:
        found.append(f"  BLIND      since {one.blind_since:%H:%M:%S} UTC")
    if one.grant and one.phase is not ShiftPhase.OFF:
        left = one.grant.expires_at - now
        who = f", approved by {', '.join(one.grant.approvers)}" if one.grant.approvers else ""
        found.append(f"  grant      {one.grant.grant_id}: {_countdown(left.total_seconds())} left{who}")
    found.extend(f"  waits for  {request} (`oncall approve {request}`)" for request in one.waiting_for)
    word = "hands over" if one.phase is ShiftPhase.OFF else "open      "
    found.extend(f"  {word} {_incident(each)}" for each in one.open)
    found.extend(
        f"  queued     {group.severity} {group.trouble} {group.service} in {group.region}" for group in one.queued
    )
    found.extend(
        f"  closed     {each.incident_id} {each.ending} ({each.group.service} in {each.group.region})"
        for each in one.closed[-3:]
    )
    found.extend(f"  note       {note}" for note in one.notes[-3:])
    return [plain(line) for line in found]


def _incident(each: FollowedIncident) -> str:
    waits = f", waits for {', '.join(each.waiting_for)}" if each.waiting_for else ""
    silent = "" if each.answered else " (did not answer)"
    return f"{each.incident_id} {each.status}{silent}{waits}  {each.summary}".rstrip()


def _countdown(seconds: float) -> str:
    minutes = max(0, int(seconds)) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02d} s"
