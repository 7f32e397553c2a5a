"""`approvals`, `approve` and `deny`: what waits for a human, and the human's signed answer."""

from pathlib import Path

import click
from temporalio.client import Client

from oncall.cli import loop, settings
from oncall.cli.deciding import Decided, make_decision, send
from oncall.cli.evidence import EvidenceOutOfReach, check_evidence
from oncall.cli.exits import ANSWER_IS_NO, DONE, UNREACHABLE
from oncall.cli.output import Output, interactive, json_option, note_silent
from oncall.cli.request_view import read_pending, view, what_is_asked
from oncall.model.access import AccessRequest, GateStatus
from oncall.model.errors import ErrorCode, OncallError, Terminal
from oncall.model.incident import PendingApproval
from oncall.rules.text import plain
from oncall.temporal import gates
from oncall.temporal.client import connect
from oncall.temporal.everywhere import Everywhere

_MIN_PREFIX = 4


def document(pending: PendingApproval, request: AccessRequest) -> dict[str, object]:
    """The JSON of one request that waits: all of it from the bytes to be signed."""
    parameters = request.intent.parameters.model_dump(mode="json") if request.intent else None
    return {
        "request_id": pending.request_id,
        "incident_id": pending.incident_id,
        "request_digest": pending.request_digest,
        "kind": request.kind.value,
        "purpose": request.purpose,
        "action": parameters.pop("type") if parameters else None,
        "parameters": parameters,
        "target": request.intent.target.model_dump(mode="json") if request.intent else None,
        "references": list(request.references),
        "severity": request.severity,
        "requester": request.requester,
        "evidence_digest": request.evidence_digest,
        "answer_by": request.answer_by.isoformat(),
        "grant_expires_at": request.grant_expires_at.isoformat(),
        "request": pending.request,
    }


def find(waiting: tuple[PendingApproval, ...], wanted: str) -> PendingApproval:
    """The one request whose id or digest is, or begins with, `wanted`. Raises Terminal(NOT_FOUND)."""
    plain_wanted = plain(wanted)
    exact = [p for p in waiting if wanted in (p.request_id, p.request_digest)]
    if len(exact) == 1:
        return exact[0]
    hexes = wanted.removeprefix("req-").removeprefix("sha256:")
    found = exact or [p for p in waiting if p.request_digest.removeprefix("sha256:").startswith(hexes)]
    if len(hexes) < _MIN_PREFIX or not found:
        message = f"no request {plain_wanted!r} waits for an answer; `oncall approvals` shows those that do"
        raise Terminal(ErrorCode.NOT_FOUND, message)
    if len(found) > 1:
        names = ", ".join(p.request_id for p in found)
        raise Terminal(ErrorCode.NOT_FOUND, f"{plain_wanted!r} means more than one request ({names}); give more of it")
    return found[0]


@click.command()
@click.argument("incident", required=False)
@json_option
def approvals(incident: str | None, as_json: bool) -> int:
    """Shows what waits for a human, in one incident or in all that run. Exit code 3 when nothing is known to wait, but
    not every incident answered.

    \b
    Example:
      oncall approvals
    """
    out = Output(as_json)
    settings.adopt(out.note)

    async def waiting() -> Everywhere[PendingApproval]:
        client = await connect()
        if incident is None:
            return await gates.all_approvals(client)
        return Everywhere(await gates.approvals(client, incident), ())

    found = loop.run(waiting())
    note_silent(out, found.silent)
    entries = []
    for pending in found.answers:
        try:
            request = read_pending(pending)
        except OncallError as error:
            out.note(f"warning: {error.message}")
            continue
        entries.append(document(pending, request))
        out.show(view(pending, request))
    out.emit({"approvals": entries, "silent": list(found.silent)})
    if entries:
        out.show("answer with `oncall approve REQUEST` or `oncall deny REQUEST`")
        return DONE
    if found.silent:
        return UNREACHABLE
    out.show("nothing waits for an answer")
    return DONE


async def _already(client: Client, wanted: str) -> None:
    """Says so when the request exists but waits no longer. Raises Terminal(ALREADY_USED)."""
    for entry in (await gates.all_access(client)).answers:
        if entry.decision is not GateStatus.PENDING and wanted in (entry.request_id, entry.request_digest):
            message = f"request {entry.request_id} is {entry.decision} already; nothing was signed"
            raise Terminal(ErrorCode.ALREADY_USED, message)


async def _look_up(wanted: str, out: Output) -> PendingApproval:
    client = await connect()
    waiting = await gates.all_approvals(client)
    note_silent(out, waiting.silent)
    try:
        return find(waiting.answers, wanted)
    except Terminal:
        await _already(client, wanted)
        raise


def _verify(request: AccessRequest, unverified: bool, out: Output) -> None:
    try:
        check_evidence(request, settings.config_if_any())
    except EvidenceOutOfReach as error:
        if not unverified:
            raise
        out.note(f"warning: signing without having verified the evidence: {error.message}")


def _answer(
    wanted: str,
    approved: bool,
    reason: str,
    key: Path | None,
    as_json: bool,
    ask: bool = False,
    unverified: bool = False,
) -> int:
    out = Output(as_json)
    stack = settings.adopt(out.note)
    chosen = settings.signing_key(key, stack, out.note)

    pending = loop.run(_look_up(wanted, out))
    request = read_pending(pending)
    out.show(view(pending, request))
    if approved:
        _verify(request, unverified, out)
    if ask and not click.confirm(f"sign YES to {what_is_asked(request)}?", err=True):
        return _tell(out, pending, Decided("not_signed", (), "you said no; the request still waits"), set())
    out.note(f"signing {'YES' if approved else 'NO'} to {what_is_asked(request)}")
    decision = make_decision(pending, approved, reason, chosen)

    async def answer() -> Decided:
        return await send(await connect(), pending, decision)

    return _tell(out, pending, loop.run(answer()), {"approved"} if approved else {"denied"})


def _tell(out: Output, pending: PendingApproval, decided: Decided, wanted: set[str]) -> int:
    out.emit(
        {
            "request_id": pending.request_id,
            "incident_id": pending.incident_id,
            "request_digest": pending.request_digest,
            "outcome": decided.outcome,
            "approvers": list(decided.approvers),
            "detail": decided.detail,
        }
    )
    by = f" by {', '.join(decided.approvers)}" if decided.approvers else ""
    out.show(plain(f"{pending.request_id}: {decided.outcome}{by}" + (f": {decided.detail}" if decided.detail else "")))
    return DONE if decided.outcome in wanted else ANSWER_IS_NO


_reason = click.option("--reason", default="", help="Why; signed and kept in the report.")
_key = click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="The SSH key to sign with.")


@click.command()
@click.argument("request")
@_reason
@_key
@click.option("--yes", is_flag=True, help="Do not ask for confirmation in a terminal.")
@click.option(
    "--unverified-evidence",
    "unverified",
    is_flag=True,
    help="Sign a WRITE request on a machine that holds no evidence to verify. Where there is some, it must be good.",
)
@json_option
def approve(request: str, reason: str, key: Path | None, yes: bool, unverified: bool, as_json: bool) -> int:
    """Shows a request and signs YES to exactly that; REQUEST is its id, its digest, or a beginning of either.

    A WRITE request is signed only if a worker's signed evidence proposes exactly that action.

    \b
    Example:
      oncall approve req-3fa85f645717 --reason "matches the runbook"
    """
    return _answer(request, True, reason, key, as_json, ask=interactive() and not yes, unverified=unverified)


@click.command()
@click.argument("request")
@_reason
@_key
@json_option
def deny(request: str, reason: str, key: Path | None, as_json: bool) -> int:
    """Shows a request and signs NO to it; REQUEST is its id, its digest, or a beginning of either.

    \b
    Example:
      oncall deny req-3fa85f645717 --reason "batch job of the month, leave it"
    """
    return _answer(request, False, reason, key, as_json)
