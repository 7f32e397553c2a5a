"""What can be seen of an incident from outside the product, as one stream of events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """Where an event was seen, and what its kind is then."""

    LEDGER = "ledger"
    """A row of the broker's ledger; kind is the row's."""
    HISTORY = "history"
    """An event of the incident's Temporal history; kind is what happened and to what, as `completed:survey`, and `gate`
    when a wait for a human begins."""
    PENDING = "pending"
    """An activity that a worker has taken, as the server describes it; kind is `running:<step>`."""
    FLAGS = "flags"
    """A line of the flag service's audit log; kind is `write`."""
    POSTGRES = "postgres"
    """A backend that was told to end, in a cluster's log; kind is `terminated`."""
    VAULT = "vault"
    """A request in Connect's log; kind is the token's name."""
    REPORT = "report"
    """The report's file appeared; kind is `written`."""
    PERSON = "person"
    """The harness's own approver, before and after sending; kind is `signs:<read|write>` or `sent:<read|write>`."""


@dataclass(frozen=True)
class Event:
    """One thing that happened. `body` is the row, the line's object or what names the history event."""

    source: Source
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], None]
