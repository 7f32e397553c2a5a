"""`resolved` is said only after a measured recovery of an estate that an action touched."""

from hypothesis import given
from hypothesis import strategies as st

from oncall.model.action import Outcome
from oncall.model.agent import Specialist
from oncall.model.coverage import Coverage
from oncall.model.incident import Ending
from oncall.model.verification import Verification
from oncall.rules.coverage import AgentOutcome, count, failure
from oncall.rules.ending import TOUCHED, ending
from oncall.rules.roster import roster
from tests.workflows.scripted import TOPOLOGY

verifications = st.none() | st.builds(Verification, recovered=st.booleans(), improved=st.booleans(), checks=st.just(()))


@given(st.lists(st.sampled_from(Outcome)), verifications)
def test_no_ending_claims_more_than_was_measured(outcomes: list[Outcome], verification: Verification | None) -> None:
    said = ending(outcomes, verification)
    if said is Ending.RESOLVED:
        assert verification is not None
        assert verification.recovered
        assert TOUCHED & set(outcomes)
    else:
        assert said in (Ending.MITIGATED, Ending.UNRESOLVED)


@given(st.lists(st.sampled_from(AgentOutcome)))
def test_coverage_adds_up(outcomes: list[AgentOutcome]) -> None:
    coverage = Coverage(planned=len(outcomes))
    for outcome in outcomes:
        coverage = count(coverage, outcome)
    assert sum(coverage.model_dump(exclude={"planned"}).values()) == coverage.planned


def test_what_became_of_an_agent_follows_from_its_error() -> None:
    assert failure("grant_revoked", timed_out=False) is AgentOutcome.REVOKED
    assert failure("probe_failed", timed_out=False) is AgentOutcome.FAILED
    assert failure(None, timed_out=True) is AgentOutcome.TIMED_OUT


def test_the_roster_is_every_specialist_of_every_service_in_every_region() -> None:
    agents = roster(TOPOLOGY)
    assert len(set(agents)) == len(agents) == len(TOPOLOGY.services) * len(Specialist)
    assert agents == roster(TOPOLOGY.model_copy(update={"services": tuple(reversed(TOPOLOGY.services))}))
