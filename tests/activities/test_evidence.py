"""A finding counts once, for the incident and the place of the agent that signed it; a synthesis is a worker's."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.evidence import FINDING_TYPE, SYNTHESIS_TYPE, Evidence
from activities.sources import Sources
from activities.synthesize import Synthesize
from oncall.blobs.store import BlobStore
from oncall.config import Config
from oncall.model.agent import Specialist
from oncall.model.coverage import Coverage
from oncall.model.diagnosis import Conclusion
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.finding import Finding, FindingRef, Health
from oncall.model.names import agent_uri
from oncall.model.steps import Synthesis, SynthesizeIn
from oncall.temporal.pools import Pool, pinned_keys
from oncall.trust.identity import Identity
from tests.workflows.scripted import diagnosis

NOW = datetime.now(UTC)


class Host:
    """A worker's host: a pool, its blobs, and an activity that reads them."""

    def __init__(self, folder: Path) -> None:
        self.worker = Pool(folder, "test", "investigate").worker
        self.evidence = Evidence(BlobStore(folder / "blobs"), pinned_keys(folder))
        config = Config.model_validate(
            {
                "state": folder,
                "approvers": folder,
                "policy": folder,
                "connect": {"url": "u"},
                "sources": {"telemetry": folder},
            }
        )
        self.synthesize = Synthesize(config, self.evidence, self.worker, Sources(config.sources))

    def agent(self, incident: str = "incident-1", service: str = "order", attempt: int = 1) -> Identity:
        uri = agent_uri("test", "eu-west-1", incident, Specialist.LOGS, service, attempt)
        return self.worker().issue(uri, NOW - timedelta(minutes=1), NOW + timedelta(hours=1))

    def store(self, signer: Identity, **changes: Any) -> FindingRef:
        """A signed finding about order's logs in eu-west-1, with changes."""
        fields = {"agent": signer.subject, "specialist": Specialist.LOGS, "service": "order", "region": "eu-west-1"}
        finding = Finding(**(fields | {"health": Health.HEALTHY, "score": 0.0, "summary": "fine"} | changes))
        digest, signature = self.evidence.store(signer, FINDING_TYPE, finding)
        return FindingRef(
            agent=signer.subject,
            specialist=finding.specialist,
            service=finding.service,
            region=finding.region,
            health=finding.health,
            score=finding.score,
            digest=digest,
            signature=signature,
        )

    def counted(self, *stubs: FindingRef) -> int:
        """How many of the stubs count in incident-1."""
        task = SynthesizeIn(
            incident_id="incident-1",
            tenant="test",
            findings=stubs,
            coverage=Coverage(),
            quorum=0.8,
            as_of=NOW,
            alert_at=NOW,
        )
        return len(self.synthesize._verified(task))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_finding_by_its_own_agent_counts_whatever_the_attempt(host: Host) -> None:
    assert host.counted(host.store(host.agent())) == 1
    assert host.counted(host.store(host.agent(attempt=3))) == 1


def test_the_same_place_counts_once(host: Host) -> None:
    stub = host.store(host.agent())
    assert host.counted(stub, stub, host.store(host.agent(attempt=2))) == 1


@pytest.mark.parametrize(
    "changes", [{"service": "payment"}, {"region": "us-east-1"}, {"specialist": Specialist.DATABASE}]
)
def test_a_finding_about_somebody_elses_place_does_not_count(host: Host, changes: dict[str, Any]) -> None:
    assert host.counted(host.store(host.agent(), **changes)) == 0


def test_an_agent_of_another_incident_or_pool_does_not_count(host: Host, tmp_path: Path) -> None:
    assert host.counted(host.store(host.agent(incident="incident-2"))) == 0
    stranger = Host(tmp_path / "elsewhere").agent()
    assert host.counted(host.store(stranger)) == 0


def test_a_stub_cannot_lend_its_name(host: Host) -> None:
    stub = host.store(host.agent(incident="incident-2"))
    assert host.counted(stub.model_copy(update={"agent": host.agent().subject})) == 0


def test_a_damaged_blob_does_not_count(host: Host, tmp_path: Path) -> None:
    stub = host.store(host.agent())
    path = tmp_path / "blobs" / stub.digest[7:9] / stub.digest[9:]
    path.write_bytes(path.read_bytes().replace(b"fine", b"bad!") + b" ")
    assert host.counted(stub) == 0


def test_a_synthesis_is_a_workers_and_of_its_incident(host: Host) -> None:
    synthesis = Synthesis(
        incident_id="incident-1",
        diagnosis=diagnosis(Conclusion.NO_FAULT),
        actions=(),
        observations=(),
        evidence_digest="",
    )
    good, _ = host.evidence.store(host.worker(), SYNTHESIS_TYPE, synthesis)
    assert host.evidence.synthesis(good, "test", "incident-1") == synthesis
    by_agent, _ = host.evidence.store(host.agent(), SYNTHESIS_TYPE, synthesis)
    for digest, incident in ((good, "incident-2"), (by_agent, "incident-1")):
        with pytest.raises(Terminal) as caught:
            host.evidence.synthesis(digest, "test", incident)
        assert caught.value.code is ErrorCode.SIGNATURE_REFUSED
