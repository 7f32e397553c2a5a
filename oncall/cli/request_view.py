"""Shows an access request to the person who is about to sign it, from the very bytes that its digest is over.

Nothing shown here is taken from anywhere else: a summary that came beside the request could say something other than
what is signed.
"""

from datetime import datetime

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from oncall.model.access import AccessKind, AccessRequest
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.incident import PendingApproval
from oncall.rules.progress import asked
from oncall.rules.text import plain
from oncall.trust.requests import parse_request, request_digest, request_id


def read_pending(pending: PendingApproval) -> AccessRequest:
    """The request in `pending`, if its text really has the digest and the id that stand beside it.

    Raises Terminal(REQUEST_MISMATCH): such a request must not be signed.
    """
    request = parse_request(pending.request)
    digest = request_digest(request)
    if (digest, request_id(digest), request.incident_id) != (
        pending.request_digest,
        pending.request_id,
        pending.incident_id,
    ):
        message = f"request {plain(pending.request_id)}: its text is not what its digest names; not signing it"
        raise Terminal(ErrorCode.REQUEST_MISMATCH, message)
    return request


def what_is_asked(request: AccessRequest) -> str:
    """One line: the kind and, for WRITE, the exact action with every parameter."""
    parameters = request.intent.parameters.model_dump(mode="json") if request.intent else None
    return plain(asked(request.kind, parameters, len(request.references)))


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _references(references: tuple[str, ...]) -> list[str]:
    """One line per item and section; its fields in braces, so that 20 references stay readable."""
    fields: dict[str, list[str]] = {}
    for reference in references:
        parent, _, field = reference.rpartition("/")
        fields.setdefault(parent, []).append(field)
    return [
        f"{parent}/{{{','.join(names)}}}" if len(names) > 1 else f"{parent}/{names[0]}"
        for parent, names in fields.items()
    ]


def view(pending: PendingApproval, request: AccessRequest) -> Panel:
    """A panel with every field of the request; `request` is what `read_pending` returned for `pending`."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, *values: str) -> None:
        table.add_row(name, Text("\n".join(plain(value) for value in values)))

    # A shift asks for itself, and has no severity.
    whose, how = ("shift", "") if request.severity is None else ("incident", f" ({request.severity})")
    row(whose, f"{request.incident_id}{how}, opened by {request.requester or 'nobody known'}")
    if request.intent is not None:
        parameters = request.intent.parameters.model_dump(mode="json")
        row("action", str(parameters.pop("type")))
        for name, value in parameters.items():
            row(f"  {name}", str(value))
        row("target", f"{request.intent.target.kind} {request.intent.target.identity}")
    row("purpose", request.purpose)
    row("references", *_references(request.references))
    if request.evidence_digest:
        row("evidence", request.evidence_digest)
    row("policy", request.policy_digest)
    row("ledger", request.ledger_id)
    row("nonce", request.nonce)
    row("answer by", _moment(request.answer_by))
    row("grant", f"{_moment(request.not_before)} to {_moment(request.grant_expires_at)}")
    row("digest", pending.request_digest)
    write = request.kind is AccessKind.WRITE
    title = f"{'CHANGE something' if write else 'READ access'} · {plain(pending.request_id)}"
    return Panel(Group(table), title=title, border_style="red" if write else "cyan", title_align="left")
