"""Where processes are killed, as data: an event that is visible from outside, and who dies at it.

No two points of one phase are used in the same incident: the second would find another incident than it names.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.campaign.events import Event, Source

SERVER = "server"
WORKERS = "workers"
"""All three of them at once."""


def anything(_: Event) -> bool:
    """Takes every event of its kind."""
    return True


def by_a_claim(event: Event) -> bool:
    """A secret that was released for an action, not to an agent."""
    return str(event.body["holder"]).startswith("action ")


def by_a_request(event: Event) -> bool:
    """A write that carries the digest of an approved request, not one of the estate's own."""
    return str(event.body["updated_by"]).startswith("sha256:")


@dataclass(frozen=True)
class Point:
    """Kill `victim` at the `nth` event of this source and kind that `which` takes.

    `victim` is a worker role, WORKERS or SERVER. `after_s` waits that long after the event. With `until`, an event kind
    of the same source, the victims stay down until then.
    """

    name: str
    phase: str
    victim: str
    source: Source
    kind: str
    nth: int = 1
    which: Callable[[Event], bool] = anything
    by: signal.Signals = signal.SIGKILL
    after_s: float = 0.0
    until: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether `event` counts towards this point."""
        return event.source is self.source and event.kind == self.kind and self.which(event)


_ORCHESTRATE, _INVESTIGATE, _REMEDIATE = "orchestrate", "investigate", "remediate"
_LEDGER, _HISTORY, _PENDING = Source.LEDGER, Source.HISTORY, Source.PENDING


def _before_the_plan() -> list[Point]:
    """Until a human has opened READ access."""
    return [
        Point("survey scheduled", "survey", _INVESTIGATE, _HISTORY, "scheduled:survey"),
        Point("survey acknowledged", "survey", _ORCHESTRATE, _HISTORY, "completed:survey"),
        Point("second survey scheduled", "survey", _INVESTIGATE, _HISTORY, "scheduled:survey", nth=2),
        Point("waiting for READ", "read gate", _ORCHESTRATE, _HISTORY, "gate"),
        Point("waiting for READ, all workers", "read gate", WORKERS, _HISTORY, "gate"),
        Point("waiting for READ, server", "read gate", SERVER, _HISTORY, "gate", by=signal.SIGTERM),
        Point(
            "no worker lives while READ is signed", "read gate", WORKERS, Source.PERSON, "signs:read", until="sent:read"
        ),
        Point("READ decision in history", "read gate", _ORCHESTRATE, _HISTORY, "signaled:decide"),
        Point("grant: the vault is asked", "grant", _INVESTIGATE, Source.VAULT, "connect-read"),
        Point("grant: in the ledger", "grant", _INVESTIGATE, _LEDGER, "grant"),
        Point("grant acknowledged", "grant", _ORCHESTRATE, _HISTORY, "completed:open_read_grant"),
    ]


def _in_the_swarm() -> list[Point]:
    """The investigation, and what is made of it."""
    agent = "completed:investigate"
    return [
        Point("1st agent runs", "swarm", _INVESTIGATE, _PENDING, "running:investigate"),
        Point("60th agent runs", "swarm", _INVESTIGATE, _PENDING, "running:investigate", nth=60),
        Point("a secret is released to an agent", "swarm", _INVESTIGATE, _LEDGER, "release"),
        Point("1st agent acknowledged", "swarm", _INVESTIGATE, _HISTORY, agent),
        Point("75th agent acknowledged", "swarm", _INVESTIGATE, _HISTORY, agent, nth=75),
        Point("75th agent acknowledged, orchestrate", "swarm", _ORCHESTRATE, _HISTORY, agent, nth=75),
        Point("100th agent acknowledged, all workers", "swarm", WORKERS, _HISTORY, agent, nth=100),
        Point("149th agent acknowledged", "swarm", _INVESTIGATE, _HISTORY, agent, nth=149),
        Point("40th agent acknowledged, server", "swarm", SERVER, _HISTORY, agent, nth=40),
        Point("110th agent acknowledged, server", "swarm", SERVER, _HISTORY, agent, nth=110, by=signal.SIGTERM),
        Point("synthesis scheduled", "synthesis", _INVESTIGATE, _HISTORY, "scheduled:synthesize"),
        Point("synthesis runs", "synthesis", _INVESTIGATE, _PENDING, "running:synthesize"),
        Point("synthesis acknowledged", "synthesis", _ORCHESTRATE, _HISTORY, "completed:synthesize"),
    ]


def _around_the_effects() -> list[Point]:
    """From the question about the actions to the proof of recovery. The flag is turned off first, then queries die."""
    sign, sent = "signs:write", "sent:write"
    return [
        Point("waiting for WRITE", "write gate", _ORCHESTRATE, _HISTORY, "gate", nth=2),
        Point("waiting for WRITE, all workers", "write gate", WORKERS, _HISTORY, "gate", nth=2),
        Point("waiting for WRITE, server", "write gate", SERVER, _HISTORY, "gate", nth=2),
        Point("no worker lives while WRITE is signed", "write gate", WORKERS, Source.PERSON, sign, until=sent),
        Point("flag: scheduled", "flag", _REMEDIATE, _HISTORY, "scheduled:remediate"),
        Point("flag: claimed", "flag", _REMEDIATE, _LEDGER, "claim"),
        Point("flag: the vault is asked", "flag", _REMEDIATE, Source.VAULT, "connect-write"),
        Point("flag: secret released", "flag", _REMEDIATE, _LEDGER, "release", which=by_a_claim),
        Point("flag: begun", "flag", _REMEDIATE, _LEDGER, "effect_begin"),
        EFFECT,
        Point("flag: done on the target, server", "flag", SERVER, Source.FLAGS, "write", which=by_a_request),
        Point("flag: ended", "flag", _REMEDIATE, _LEDGER, "effect_end"),
        Point("flag acknowledged", "flag", _ORCHESTRATE, _HISTORY, "completed:remediate"),
        Point("kill: claimed", "kill", _REMEDIATE, _LEDGER, "claim", nth=2),
        Point("kill: begun", "kill", _REMEDIATE, _LEDGER, "effect_begin", nth=2),
        Point("kill: begun, server", "kill", SERVER, _LEDGER, "effect_begin", nth=2, by=signal.SIGTERM),
        Point("kill: 1st backend ended", "kill", _REMEDIATE, Source.POSTGRES, "terminated"),
        Point("kill: 3rd backend ended", "kill", _REMEDIATE, Source.POSTGRES, "terminated", nth=3),
        Point("kill: ended", "kill", _REMEDIATE, _LEDGER, "effect_end", nth=2),
        Point("kill acknowledged", "kill", _ORCHESTRATE, _HISTORY, "completed:remediate", nth=2),
        Point("verification runs", "verify", _INVESTIGATE, _PENDING, "running:verify"),
        Point("verification half done", "verify", _INVESTIGATE, _PENDING, "running:verify", after_s=5.0),
        Point("verification acknowledged", "verify", _ORCHESTRATE, _HISTORY, "completed:verify"),
    ]


def _while_closing() -> list[Point]:
    """The report."""
    return [
        Point("report scheduled", "report", _INVESTIGATE, _HISTORY, "scheduled:write_report"),
        Point("report scheduled, server", "report", SERVER, _HISTORY, "scheduled:write_report"),
        Point("report on disk", "report", _INVESTIGATE, Source.REPORT, "written"),
        Point("report acknowledged", "report", _ORCHESTRATE, _HISTORY, "completed:write_report"),
    ]


EFFECT = Point("flag: done on the target", "flag", _REMEDIATE, Source.FLAGS, "write", which=by_a_request)
"""After an effect and before anybody knows of it: where a remedy that only repeats itself does it twice."""

POINTS: tuple[Point, ...] = (*_before_the_plan(), *_in_the_swarm(), *_around_the_effects(), *_while_closing())


def named(*names: str) -> tuple[Point, ...]:
    """The points of these names, in the order in which they come. Raises KeyError for a name that is none."""
    by_name = {point.name: point for point in POINTS}
    return tuple(by_name[name] for name in names)
