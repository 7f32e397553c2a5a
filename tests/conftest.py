"""Options and fixtures for every room, and which tests may run beside which."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
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


# First, because the plugin that reads the marker comes before any conftest.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the estate into one group, which one process runs."""
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(ESTATE):
            item.add_marker(pytest.mark.xdist_group("estate"))


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether golden histories are to be rewritten."""
    return bool(request.config.getoption("--update-goldens"))
