"""What is there: topology, policy, approvers and the end of the window, recorded for the workflow."""

from activities.implements import implements
from activities.sources import Sources
from activities.tenant import check_tenant
from oncall.access.ledger import Ledger
from oncall.config import Config
from oncall.model.access import Approvers
from oncall.model.policy import Policy
from oncall.model.steps import SURVEY, Surveyed, SurveyIn
from oncall.trust.requests import policy_digest


class Observe:
    """Surveys what this worker is configured to see."""

    def __init__(self, config: Config, policy: Policy, approvers: Approvers, ledger: Ledger, sources: Sources) -> None:
        self._config = config
        self._policy = policy
        self._approvers = approvers
        self._ledger = ledger
        self._sources = sources

    @implements(SURVEY)
    async def survey(self, task: SurveyIn) -> Surveyed:
        """The surroundings of an incident, as of now or as of a recording's alert.

        Raises Terminal(BAD_CONFIG) for another tenant's incident, before anybody is asked anything.
        """
        check_tenant(self._config, task.tenant, "the incident")
        topology = await self._sources.telemetry(task.recording).topology()
        return Surveyed(
            topology=topology,
            policy=self._policy,
            policy_digest=policy_digest(self._policy),
            approvers=self._approvers,
            ledger_id=self._ledger.ledger_id,
            read_references=() if task.recording else self._config.references.read_set(topology.regions),
            quorum=self._config.incident.quorum,
            as_of=self._sources.as_of(task.recording),
        )
