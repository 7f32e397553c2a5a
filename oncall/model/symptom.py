"""One figure of one service that went wrong, and what it has to come back within."""

from oncall.model.frozen import Frozen


class Symptom(Frozen):
    """A metric of a service: what it was when it was bad (`before`), and the `threshold` of its usual range, on the bad
    side. Both are in the metric's unit; either is None when it could not be measured."""

    region: str
    service: str
    metric: str
    before: float | None
    threshold: float | None
