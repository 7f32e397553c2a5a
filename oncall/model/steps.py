"""The typed steps: the only way a workflow reaches an activity.

A step binds an activity's name to its queue, its input and its output, so that neither side imports the other. One
model goes in and one comes out. The type variables are invariant on purpose: inferred covariance would let a wrong
argument type-check.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from oncall.model.access import Approvers, Decision, Grant
from oncall.model.action import Action, ActionResult
from oncall.model.agent import Agent
from oncall.model.coverage import Coverage
from oncall.model.diagnosis import Diagnosis, RootCause
from oncall.model.finding import FindingRef
from oncall.model.frozen import Frozen
from oncall.model.names import Queue
from oncall.model.observation import Observation
from oncall.model.policy import Policy
from oncall.model.report import IncidentReport
from oncall.model.shift import AlertGroup, FollowedIncident
from oncall.model.symptom import Symptom
from oncall.model.topology import Topology
from oncall.model.verification import Verification

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


@dataclass(frozen=True)
class Step(Generic[In, Out]):
    """One activity as workflows see it."""

    name: str
    queue: Queue
    input: type[In]
    output: type[Out]


class SurveyIn(Frozen):
    """Which incident, of which tenant, and over which recording if any."""

    incident_id: str
    tenant: str
    recording: str | None = None


class Surveyed(Frozen):
    """What a worker knows of its surroundings, recorded so that the workflow decides deterministically.

    `policy`, `approvers` and `ledger_id` are advisory here: the broker uses its own.
    """

    topology: Topology
    policy: Policy
    policy_digest: str
    approvers: Approvers
    ledger_id: str
    read_references: tuple[str, ...]
    quorum: float
    as_of: datetime


class OpenGrantIn(Frozen):
    """An approved READ request, as the bytes that were signed over, and the decisions."""

    request: str
    decisions: tuple[Decision, ...]


class InvestigateIn(Frozen):
    """One agent's task. `as_of` ends the window that is read, and all agents of a wave share it; `alert_at` is when the
    alert was raised: what is usual is what was so well before that. `wave` counts from 1: an incident that widens looks
    again."""

    incident_id: str
    tenant: str
    agent: Agent
    as_of: datetime
    alert_at: datetime
    grant_digest: str | None
    recording: str | None = None
    wave: int = Field(default=1, ge=1)


class SynthesizeIn(Frozen):
    """The findings of a wave as stubs, and how complete they are."""

    incident_id: str
    tenant: str
    findings: tuple[FindingRef, ...]
    coverage: Coverage
    quorum: float
    as_of: datetime
    alert_at: datetime
    recording: str | None = None


class Synthesis(Frozen):
    """A diagnosis, the actions that follow from what was observed, and every observation that either cites.

    `symptoms` are the figures that tell whether the root cause still hurts, as they were then: recovery is measured
    against them. `evidence_digest` is the digest of the signed envelope in blob storage.
    """

    incident_id: str

    diagnosis: Diagnosis
    actions: tuple[Action, ...]
    observations: tuple[Observation, ...]
    symptoms: tuple[Symptom, ...] = ()
    evidence_digest: str
    unverified: int = 0


class RemediateIn(Frozen):
    """The bytes that were signed over, and the signatures. No other argument reaches a remedy."""

    request: str
    decisions: tuple[Decision, ...]


class VerifyIn(Frozen):
    """Measure recovery of a cause. `evidence_digest` names the signed synthesis, which has what it is held against;
    only telemetry from after `since` counts."""

    incident_id: str
    tenant: str
    root_cause: RootCause
    evidence_digest: str
    grant_digest: str
    since: datetime


class MeasureIn(Frozen):
    """Measure whether figures are back within their thresholds, under a READ grant."""

    incident_id: str
    tenant: str
    symptoms: tuple[Symptom, ...]
    grant_digest: str


class ObserveIn(Frozen):
    """One look of a shift at everything it watches, under its READ grant."""

    shift_id: str
    tenant: str
    grant_digest: str


class Observed(Frozen):
    """What stood out, grouped along the call graph, worst first. `services` is how many services had telemetry of late;
    `blind` names those that had none."""

    as_of: datetime
    services: int
    groups: tuple[AlertGroup, ...] = ()
    blind: tuple[str, ...] = ()


class IncidentKey(Frozen):
    """One run of an incident; without `run_id` the newest."""

    incident_id: str
    run_id: str | None = None


class FollowIn(Frozen):
    """Which incidents to look at."""

    incidents: tuple[IncidentKey, ...]


class Followed(Frozen):
    """How each of them stands, in the same order."""

    incidents: tuple[FollowedIncident, ...]


class ReportIn(Frozen):
    """The finished report, to be written as files."""

    report: IncidentReport


class Written(Frozen):
    """Where a report was written."""

    path: str


SURVEY = Step("survey", Queue.INVESTIGATE, SurveyIn, Surveyed)
OPEN_GRANT = Step("open_read_grant", Queue.INVESTIGATE, OpenGrantIn, Grant)
INVESTIGATE = Step("investigate", Queue.INVESTIGATE, InvestigateIn, FindingRef)
SYNTHESIZE = Step("synthesize", Queue.INVESTIGATE, SynthesizeIn, Synthesis)
REMEDIATE = Step("remediate", Queue.REMEDIATE, RemediateIn, ActionResult)
VERIFY = Step("verify", Queue.INVESTIGATE, VerifyIn, Verification)
MEASURE = Step("measure", Queue.INVESTIGATE, MeasureIn, Verification)
OBSERVE = Step("observe", Queue.INVESTIGATE, ObserveIn, Observed)
FOLLOW = Step("follow", Queue.ORCHESTRATE, FollowIn, Followed)
REPORT = Step("write_report", Queue.INVESTIGATE, ReportIn, Written)

STEPS: tuple[Step[Any, Any], ...] = (
    SURVEY,
    OPEN_GRANT,
    INVESTIGATE,
    SYNTHESIZE,
    REMEDIATE,
    VERIFY,
    MEASURE,
    OBSERVE,
    FOLLOW,
    REPORT,
)
