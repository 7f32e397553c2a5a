"""Steps with scripted answers: the workflow's own behaviour, without an estate."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from activities.follow import Follow
from activities.implements import implements
from oncall.model import steps
from oncall.model.access import AccessKind, Approvers, Grant
from oncall.model.action import Action, ActionResult, DisableFlag, KillQueries, Outcome, Risk, Target
from oncall.model.agent import Agent, Specialist
from oncall.model.alert import Alert, Severity
from oncall.model.diagnosis import Claim, Conclusion, Diagnosis, RootCause, Suspect
from oncall.model.errors import ErrorCode, OncallError, Terminal
from oncall.model.finding import FindingRef, Health
from oncall.model.observation import Observation
from oncall.model.opening import Opening
from oncall.model.policy import Policy, Rule, Verdict
from oncall.model.shift import AlertGroup, ShiftOpening, Sighting, Trouble
from oncall.model.symptom import Symptom
from oncall.model.topology import Call, Instance, Topology
from oncall.model.verification import Check, Verification
from oncall.trust import requests

TOPOLOGY = Topology(
    regions=("eu-west-1", "us-east-1"),
    services=tuple(Instance(region=r, service=s) for r in ("eu-west-1", "us-east-1") for s in ("gateway", "order")),
    calls=tuple(Call(region=r, caller="gateway", callee="order") for r in ("eu-west-1", "us-east-1")),
)

POLICY = Policy(
    version=1,
    read=Verdict.APPROVE,
    actions={
        "disable_flag": Rule(verdict=Verdict.APPROVE, risk=Risk.LOW),
        "kill_queries": Rule(verdict=Verdict.APPROVE, risk=Risk.MEDIUM),
    },
)

FLAG = Action(
    action_id="act-1-disable_flag",
    parameters=DisableFlag(region="eu-west-1", flag="order-batch-reads", expected_version=3),
    target=Target(kind="flag", identity="eu-west-1/order-batch-reads"),
    risk=Risk.LOW,
    reversible=True,
    references=("op://Infrastructure-Write/config-service/credential",),
    reason="the flag changed when the errors began",
    observations=("obs-1",),
    manual_steps=("turn the flag off by hand",),
)

KILL = Action(
    action_id="act-2-kill_queries",
    parameters=KillQueries(
        region="eu-west-1", database="order", role="app_order", query_id="-42", min_age_s=5, max_count=4
    ),
    target=Target(kind="statement", identity="eu-west-1/order/-42"),
    risk=Risk.MEDIUM,
    reversible=False,
    references=("op://Infrastructure-Write/prod-db-rwaccess/eu-west-1/password",),
    reason="four executions run away",
    observations=("obs-1",),
    manual_steps=("terminate the backends by hand",),
)

OBSERVATION = Observation(
    id="obs-1",
    agent="spiffe://test/eu-west-1/incident/i/database/order/attempt/1",
    tool="query_slow_queries",
    arguments={},
    taken_at=datetime(2026, 1, 1, tzinfo=UTC),
    value={"active": 4},
    sha256="0" * 64,
    reproducible=False,
)


def diagnosis(conclusion: Conclusion) -> Diagnosis:
    """A diagnosis of the given kind."""
    found = conclusion is Conclusion.ROOT_CAUSE
    cause = RootCause(
        region="eu-west-1", service="order", specialist=Specialist.DATABASE, cause="runaway reads", confidence=0.9
    )
    return Diagnosis(
        conclusion=conclusion,
        root_cause=cause if found else None,
        abstained=not found,
        summary=f"scripted {conclusion}",
        ranked=(Suspect(region="eu-west-1", service="order", specialist=Specialist.DATABASE, score=9.0),),
        claims=(Claim(text="four statements run away", observations=("obs-1",)),) if found else (),
    )


SYMPTOM = Symptom(region="eu-west-1", service="order", metric="error_rate(%)", before=80.0, threshold=8.0)


@dataclass
class Script:
    """What each step answers. The steps count their calls in `calls`."""

    approvers: Approvers
    conclusion: Conclusion = Conclusion.ROOT_CAUSE
    actions: tuple[Action, ...] = (FLAG, KILL)
    policy: Policy = POLICY
    recovered: bool = True
    improved: bool = True
    outcome: Outcome = Outcome.SUCCEEDED
    failing_agents: int = 0
    grant_failures: list[OncallError] = field(default_factory=list)
    unverified: int = 0
    recovers_by_itself: bool = False
    conclusions: list[Conclusion] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)
    symptoms: tuple[Symptom, ...] = (SYMPTOM,)
    groups: tuple[AlertGroup, ...] = ()
    observe_failures: list[OncallError] = field(default_factory=list)
    survey_failures: list[OncallError] = field(default_factory=list)
    observed_under: list[str] = field(default_factory=list)
    measured_under: list[str] = field(default_factory=list)
    hold_look: asyncio.Event | None = None
    hold_grant: asyncio.Event | None = None
    hold_survey: asyncio.Event | None = None
    hold_investigation: asyncio.Event | None = None
    hold_remedy: asyncio.Event | None = None
    calls: dict[str, int] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)

    def _called(self, step: steps.Step[Any, Any]) -> int:
        self.calls[step.name] = self.calls.get(step.name, 0) + 1
        return self.calls[step.name]

    @implements(steps.SURVEY)
    async def survey(self, task: steps.SurveyIn) -> steps.Surveyed:
        self._called(steps.SURVEY)
        if self.hold_survey is not None:
            await self.hold_survey.wait()
        if self.survey_failures:
            raise self.survey_failures.pop(0)
        return steps.Surveyed(
            topology=TOPOLOGY,
            policy=self.policy,
            policy_digest=requests.policy_digest(self.policy),
            approvers=self.approvers,
            ledger_id="ledger-test",
            read_references=("op://Infrastructure/k8s-prod-readonly/credential",),
            quorum=0.8,
            as_of=datetime(2026, 1, 1, tzinfo=UTC),
        )

    @implements(steps.OPEN_GRANT)
    async def open_grant(self, task: steps.OpenGrantIn) -> Grant:
        self._called(steps.OPEN_GRANT)
        if self.hold_grant is not None:
            await self.hold_grant.wait()
        if self.grant_failures:
            raise self.grant_failures.pop(0)
        request = requests.parse_request(task.request)
        digest = requests.request_digest(request)
        return Grant(
            grant_id=requests.grant_id(digest),
            request_digest=digest,
            kind=AccessKind.READ,
            references=request.references,
            holder="test",
            not_before=request.not_before,
            expires_at=request.grant_expires_at,
        )

    @implements(steps.INVESTIGATE)
    async def investigate(self, task: steps.InvestigateIn) -> FindingRef:
        number = self._called(steps.INVESTIGATE)
        self.agents.append(task.agent)
        if self.hold_investigation is not None:
            await self.hold_investigation.wait()
        if number <= self.failing_agents:
            raise Terminal(ErrorCode.PROBE_FAILED, "scripted failure")
        return FindingRef(
            agent=f"spiffe://test/{number}",
            specialist=task.agent.specialist,
            service=task.agent.service,
            region=task.agent.region,
            health=Health.HEALTHY,
            score=0.0,
            digest="sha256:" + "0" * 64,
            signature="",
            secret_requests=1,
        )

    @implements(steps.SYNTHESIZE)
    async def synthesize(self, task: steps.SynthesizeIn) -> steps.Synthesis:
        self._called(steps.SYNTHESIZE)
        conclusion = self.conclusions.pop(0) if self.conclusions else self.conclusion
        return steps.Synthesis(
            incident_id=task.incident_id,
            diagnosis=diagnosis(conclusion),
            actions=self.actions if conclusion is Conclusion.ROOT_CAUSE else (),
            observations=(OBSERVATION,),
            symptoms=self.symptoms,
            evidence_digest="sha256:" + "1" * 64,
            unverified=self.unverified,
        )

    @implements(steps.REMEDIATE)
    async def remediate(self, task: steps.RemediateIn) -> ActionResult:
        self._called(steps.REMEDIATE)
        request = requests.parse_request(task.request)
        assert request.intent is not None
        if self.hold_remedy is not None:
            await self.hold_remedy.wait()
        self.applied.append(request.intent.parameters.type)
        return ActionResult(
            action_digest=requests.action_digest(request.intent.parameters, request.intent.target),
            request_digest=requests.request_digest(request),
            outcome=self.outcome,
            verified=self.outcome is Outcome.SUCCEEDED,
        )

    @implements(steps.VERIFY)
    async def verify(self, task: steps.VerifyIn) -> Verification:
        self._called(steps.VERIFY)
        self.measured_under.append(task.grant_digest)
        check = Check(
            name="error_rate",
            region="eu-west-1",
            service="order",
            before=100.0,
            after=0.0 if self.recovered else 50.0,
            threshold=1.0,
            ok=self.recovered,
        )
        return Verification(recovered=self.recovered, improved=self.improved, checks=(check,))

    @implements(steps.MEASURE)
    async def measure(self, task: steps.MeasureIn) -> Verification:
        self._called(steps.MEASURE)
        self.measured_under.append(task.grant_digest)
        checks = tuple(
            Check(
                name=symptom.metric,
                region=symptom.region,
                service=symptom.service,
                before=symptom.before,
                after=0.0 if self.recovers_by_itself else symptom.before,
                threshold=symptom.threshold or 0.0,
                ok=self.recovers_by_itself,
            )
            for symptom in task.symptoms
        )
        return Verification(recovered=self.recovers_by_itself, improved=self.recovers_by_itself, checks=checks)

    @implements(steps.OBSERVE)
    async def observe(self, task: steps.ObserveIn) -> steps.Observed:
        self._called(steps.OBSERVE)
        self.observed_under.append(task.grant_digest)
        if self.hold_look is not None:
            await self.hold_look.wait()
        if self.observe_failures:
            raise self.observe_failures.pop(0)
        return steps.Observed(as_of=datetime.now(UTC), services=len(TOPOLOGY.services), groups=self.groups)

    @implements(steps.REPORT)
    async def report(self, task: steps.ReportIn) -> steps.Written:
        self._called(steps.REPORT)
        return steps.Written(path="/nowhere/report.json")

    def on(self, queue: str) -> list[Callable[..., Any]]:
        """The activities of one queue."""
        everything: dict[steps.Step[Any, Any], Callable[..., Any]] = {
            steps.SURVEY: self.survey,
            steps.OPEN_GRANT: self.open_grant,
            steps.INVESTIGATE: self.investigate,
            steps.SYNTHESIZE: self.synthesize,
            steps.REMEDIATE: self.remediate,
            steps.VERIFY: self.verify,
            steps.MEASURE: self.measure,
            steps.OBSERVE: self.observe,
            steps.FOLLOW: Follow().follow,
            steps.REPORT: self.report,
        }
        return [implementation for step, implementation in everything.items() if step.queue == queue]


def opening(incident_id: str, recording: str | None = None) -> Opening:
    """An opening by nobody in particular."""
    now = datetime.now(UTC)
    return Opening(
        incident_id=incident_id,
        tenant="test",
        anomaly_type="elevated_errors",
        severity=Severity.CRITICAL,
        message="users report errors",
        alert=Alert(labels={"alertname": "x"}, annotations={}, starts_at=now, fingerprint="f"),
        opened_at=now,
        recording=recording,
    )


def trouble(
    service: str = "order",
    region: str = "eu-west-1",
    severity: Severity = Severity.CRITICAL,
    since: datetime | None = None,
) -> AlertGroup:
    """One service that fails, as a look of a shift shows it."""
    symptom = SYMPTOM.model_copy(update={"service": service, "region": region})
    began = since or datetime.now(UTC)
    return AlertGroup(
        region=region,
        service=service,
        services=(service,),
        around=tuple({"gateway", "order"} - {service}),
        trouble=Trouble.ERRORS,
        severity=severity,
        since=began,
        sightings=(Sighting(trouble=Trouble.ERRORS, symptom=symptom, since=began),),
    )


def shift_opening(team: str, **changes: Any) -> ShiftOpening:
    """A shift that looks twice a second."""
    fields: dict[str, Any] = {
        "shift_id": f"shift-{team}",
        "tenant": "test",
        "team": team,
        "opened_at": datetime.now(UTC),
        "interval_s": 0.5,
        "answer_by_s": 1800,
        "grant_s": 3600,
        "renew_before_s": 600,
        "max_incidents": 3,
        "clear_s": 2,
        "incident_answer_by_s": 600,
        "incident_grant_s": 600,
    }
    return ShiftOpening.model_validate({**fields, **changes})
