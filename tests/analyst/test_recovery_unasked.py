"""Nothing of nothing is no recovery: figures of a service that nobody asks any more say nothing."""

from datetime import UTC, datetime

import numpy as np

from oncall.analyst.recovery import symptom_checks
from oncall.model.symptom import Symptom
from oncall.model.topology import Instance, Topology
from oncall.telemetry.window import Series, Window

TIMES = np.arange(1_700_000_000.0, 1_700_000_010.0, 2.0)
TOPOLOGY = Topology(regions=("eu",), services=(Instance(region="eu", service="order"),), calls=())


def window(**levels: float) -> Window:
    names = {"errors": "errors(1/s)", "requests": "requests(1/s)"}
    series = {names[name]: Series(TIMES, np.full(len(TIMES), level)) for name, level in levels.items()}
    return Window(
        start=datetime.fromtimestamp(TIMES[0] - 2, UTC),
        end=datetime.fromtimestamp(TIMES[-1], UTC),
        series={("eu", "order"): series},
    )


def test_a_service_without_traffic_has_not_recovered() -> None:
    failing = Symptom(region="eu", service="order", metric="errors(1/s)", before=8.0, threshold=0.5)
    assert symptom_checks((failing,), window(errors=0.0, requests=10.0), TOPOLOGY).recovered
    assert not symptom_checks((failing,), window(errors=0.0, requests=0.0), TOPOLOGY).recovered
