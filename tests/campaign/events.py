"""What can be seen of an incident from outside the product: one stream of events from six places."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """Where an event was seen.

    LEDGER: a row of the broker's ledger; kind is the row's. HISTORY: an event of the incident's Temporal history; kind
    is what happened and to what, as `completed:survey`. PENDING: an activity that a worker has taken, as the server
    describes it; kind is `running:<step>`. FLAGS: a line of the flag service's audit log; kind is `write`. POSTGRES: a
    backend that was told to end, in a cluster's log; kind is `terminated`. VAULT: a request in Connect's log; kind is
    the token's name. REPORT: the report's file appeared; kind is `written`. PERSON: the harness's own approver, before
    and after sending; kind is `signs:<read|write>` or `sent:<read|write>`.
    """

    LEDGER = "ledger"
    HISTORY = "history"
    PENDING = "pending"
    FLAGS = "flags"
    POSTGRES = "postgres"
    VAULT = "vault"
    REPORT = "report"
    PERSON = "person"


@dataclass(frozen=True)
class Event:
    """One thing that happened. `body` is the row, the line's object or what names the history event."""

    source: Source
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], None]
