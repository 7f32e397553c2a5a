"""Contract: among the subjects of one service that stand out, the nearer cause is named, but only if it stands out."""

import pytest

from oncall.analyst.evidence import Evidence
from oncall.analyst.places import Place
from oncall.analyst.rank import nearest_cause
from oncall.model.agent import Specialist


def place(**scores: float) -> Place:
    evidence: dict[Specialist, tuple[Evidence, ...]] = {
        Specialist(name): (Evidence(score, "it strays", "obs-1"),) for name, score in scores.items()
    }
    return Place("north", "back", evidence=evidence)


@pytest.mark.parametrize(
    ("scores", "named"),
    [
        ({}, Specialist.LOGS),
        ({"database": 40.0, "logs": 60.0}, Specialist.DATABASE),
        ({"database": 20.0, "logs": 60.0}, Specialist.LOGS),
        ({"database": 5.2, "logs": 9.0}, Specialist.LOGS),
        ({"database": 6.0, "logs": 9.0}, Specialist.DATABASE),
        ({"database": 5.9}, Specialist.LOGS),
        ({"database": 5.9, "network": 8.0}, Specialist.NETWORK),
    ],
)
def test_the_nearer_of_those_that_stand_out_alike(scores: dict[str, float], named: Specialist) -> None:
    assert nearest_cause(place(**scores)) is named
