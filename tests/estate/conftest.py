"""One estate for all tests of this directory: it takes seconds to start and is made to be shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.estate.running import RunningEstate, start_estate


@pytest.fixture(scope="session")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEstate]:
    """A running estate. A test that injects a fault heals it."""
    running = start_estate(tmp_path_factory.mktemp("estate"), seed=11)
    yield running
    running.stop()
