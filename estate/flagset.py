"""Which flags each service has, and what each one really does.

Names say nothing: every service has two flags that choose how it reads and two that choose how it answers. Of
each pair one is harmless and often on; which of the names that is, the estate's seed decides.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from estate.topology import SERVICES

_READ_NAMES = ("batch-reads", "joined-reads", "eager-details", "summary-reads", "wide-lookups")
_ANSWER_NAMES = ("api-v3", "compact-responses", "typed-payloads", "new-serializer", "strict-fields")


class Effect(StrEnum):
    """What a service does differently while the flag is on."""

    RUNAWAY_READS = "runaway_reads"
    JOINED_READS = "joined_reads"
    BROKEN_ANSWERS = "broken_answers"
    COMPACT_ANSWERS = "compact_answers"


HARMLESS = frozenset({Effect.JOINED_READS, Effect.COMPACT_ANSWERS})


@dataclass(frozen=True)
class FlagSpec:
    """One flag of one service, the same in every region."""

    key: str
    service: str
    effect: Effect
    initially_on: bool


def flag_specs(seed: int) -> dict[str, FlagSpec]:
    """All flags by key. The harmful ones start off; most harmless ones start on."""
    specs: dict[str, FlagSpec] = {}
    for service in SERVICES:
        draw = random.Random(f"flags:{seed}:{service}")
        reads = draw.sample(_READ_NAMES, 2)
        answers = draw.sample(_ANSWER_NAMES, 2)
        pairs = (
            (reads[0], Effect.RUNAWAY_READS, False),
            (reads[1], Effect.JOINED_READS, draw.random() < 0.7),
            (answers[0], Effect.BROKEN_ANSWERS, False),
            (answers[1], Effect.COMPACT_ANSWERS, draw.random() < 0.7),
        )
        for suffix, effect, initially_on in pairs:
            key = f"{service}-{suffix}"
            specs[key] = FlagSpec(key, service, effect, initially_on)
    return dict(sorted(specs.items()))


def flags_of(service: str, specs: dict[str, FlagSpec]) -> dict[Effect, str]:
    """A service's flag key for each effect."""
    return {spec.effect: spec.key for spec in specs.values() if spec.service == service}
