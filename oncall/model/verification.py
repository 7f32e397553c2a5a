"""Recovery, measured."""

from oncall.model.frozen import Frozen


class Check(Frozen):
    """One measurement before and after, against a threshold it must not exceed. `after` None is unknown, so not ok."""

    name: str
    region: str
    service: str
    before: float | None
    after: float | None
    threshold: float
    ok: bool


class Verification(Frozen):
    """Whether the estate recovered. `improved` is true when at least one check that was bad is now ok; `blind` names
    what could not be read at the last look. `settled` is false when looking on may still change the answer."""

    recovered: bool
    improved: bool
    checks: tuple[Check, ...]
    blind: tuple[str, ...] = ()
    settled: bool = True
