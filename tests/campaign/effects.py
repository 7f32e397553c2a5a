"""What was done to the estate, from the estate's own records, against what was approved.

The flag service's audit log has a line per write that took effect, PostgreSQL's log a line per backend that was told to
end. The product's word counts for nothing here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oncall.model.access import AccessRequest
from oncall.model.action import DisableFlag, KillQueries
from tests.campaign.events import Event, Source

_ROLLBACK = ":rollback"


@dataclass(frozen=True)
class Effects:
    """`taken`: requests that changed something. `doubled`: changes that were made more than once, or more of them than
    approved. `stray`: changes that nobody approved, or that the ledger did not name before they were made. In words."""

    taken: int
    doubled: tuple[str, ...] = ()
    stray: tuple[str, ...] = ()


def account(seen: Iterable[Event], approved: Mapping[str, AccessRequest]) -> Effects:
    """The effects among `seen`, held against the requests that were approved, by digest."""
    seen = tuple(seen)
    flags, kills = _flags(seen, approved), _kills(seen, approved)
    return Effects(flags.taken + kills.taken, flags.doubled + kills.doubled, flags.stray + kills.stray)


def _flags(seen: tuple[Event, ...], approved: Mapping[str, AccessRequest]) -> Effects:
    writes: Counter[str] = Counter()
    stray = []
    for event in seen:
        body = event.body
        if event.source is not Source.FLAGS or not str(body["updated_by"]).startswith("sha256:"):
            continue
        digest = str(body["updated_by"])
        writes[digest] += 1
        request = approved.get(digest.removesuffix(_ROLLBACK))
        intent = request.intent.parameters if request is not None and request.intent is not None else None
        if not isinstance(intent, DisableFlag) or (intent.flag, intent.region) != (body["key"], body["region"]):
            stray.append(f"flag {body['key']} in {body['region']} was written without approval of it")
        elif body["enabled"] is not digest.endswith(_ROLLBACK):
            stray.append(f"flag {body['key']} in {body['region']} was turned {'on' if body['enabled'] else 'off'}")
    doubled = [f"{times} writes took effect under {digest}" for digest, times in writes.items() if times > 1]
    return Effects(len({digest.removesuffix(_ROLLBACK) for digest in writes}), tuple(doubled), tuple(stray))


def _kills(seen: tuple[Event, ...], approved: Mapping[str, AccessRequest]) -> Effects:
    ended: dict[str, Counter[int]] = {}
    for event in seen:
        if event.source is Source.POSTGRES:
            ended.setdefault(str(event.body["region"]), Counter())[int(event.body["pid"])] += 1
    doubled, stray = [], []
    for region, pids in ended.items():
        doubled += [f"backend {pid} in {region} was ended {times} times" for pid, times in pids.items() if times > 1]
        allowed, chosen = 0, set()
        for digest, request in approved.items():
            kill = request.intent.parameters if request.intent is not None else None
            if isinstance(kill, KillQueries) and kill.region == region:
                allowed += kill.max_count
                chosen |= _recorded_victims(seen, digest)
        if len(pids) > allowed:
            doubled.append(f"{len(pids)} backends were ended in {region}, and {allowed} approved")
        stray += [f"backend {pid} in {region} was ended and never chosen" for pid in sorted(set(pids) - chosen)]
    return Effects(len(ended), tuple(doubled), tuple(stray))


def _recorded_victims(seen: tuple[Event, ...], digest: str) -> set[int]:
    """The backends that the ledger says were chosen before the first of them was ended."""
    return {
        int(victim["pid"])
        for event in seen
        if event.source is Source.LEDGER and event.kind == "effect_begin" and event.body["request_digest"] == digest
        for victim in event.body["detail"].get("victims", ())
    }
