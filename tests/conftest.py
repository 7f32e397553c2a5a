"""Options and fixtures for every room."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-goldens` rewrites the golden histories from the tests that make them."""
    parser.addoption("--update-goldens", action="store_true", default=False)


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether golden histories are to be rewritten."""
    return bool(request.config.getoption("--update-goldens"))
