"""Contract: a role that PostgreSQL hides other sessions from is told so; it never reads as calm."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from oncall.model.errors import ErrorCode, Terminal
from oncall.probes import postgres
from tests.remedies.postgres import Cluster, started


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running cluster."""
    with started() as running:
        yield running


async def test_a_role_that_sees_only_itself_is_not_believed(cluster: Cluster) -> None:
    with pytest.raises(Terminal) as failed:
        await postgres.look("north", f"127.0.0.1:{cluster.port}", "blind", SecretStr(cluster.password), "orders")
    assert failed.value.code is ErrorCode.PROBE_FAILED
    assert "may not see other sessions" in failed.value.message


async def test_what_runs_is_seen_also_without_statement_totals(cluster: Cluster) -> None:
    async with cluster.running(2):
        seen = await postgres.look(
            "north", f"127.0.0.1:{cluster.port}", "postgres", SecretStr(cluster.superuser), "orders"
        )
    assert seen.statements is None
    assert all(statement.role == "app_order" for statement in seen.active)
