"""Options and fixtures for every room, and which tests may run beside which."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ESTATE = (
    "analyst/test_live.py",
    "analyst/test_notice_live.py",
    "campaign/test_quick.py",
    "cli/test_stack.py",
    "e2e",
    "estate",
)
"""Tests of the estate. They measure time, and two estates would starve each other on two cores: one after the other,
beside the tests of everything else."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-goldens` rewrites the golden histories from the tests that make them."""
    parser.addoption("--update-goldens", action="store_true", default=False)


class EstateApart(LoadScopeScheduling):
    """Gives the tests of the estate to one process, all others to whichever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return "estate" if nodeid.removeprefix("tests/").startswith(ESTATE) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> EstateApart:
    """Which test runs in which process."""
    return EstateApart(config, log)


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether golden histories are to be rewritten."""
    return bool(request.config.getoption("--update-goldens"))
