"""One PostgreSQL cluster for the bench."""

from collections.abc import Iterator

import pytest

from tests.remedies.postgres import Cluster, started


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running cluster."""
    with started() as cluster:
        yield cluster
