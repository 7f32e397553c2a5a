"""Contract: no YES is signed to a change that no worker of a pinned pool has proposed for that incident, exactly so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from activities.evidence import FINDING_TYPE, SYNTHESIS_TYPE, Evidence
from oncall.blobs.store import BlobStore
from oncall.cli.evidence import EvidenceOutOfReach, check_evidence
from oncall.config import Config
from oncall.model.access import AccessRequest
from oncall.model.diagnosis import Conclusion
from oncall.model.errors import Terminal
from oncall.model.steps import Synthesis
from oncall.temporal.pools import Pool, pinned_keys
from tests.workflows.scripted import FLAG, OBSERVATION, diagnosis

INCIDENT = "incident-1"


def config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "tenant": "test",
            "state": folder,
            "approvers": folder / "a",
            "policy": folder / "p",
            "connect": {"url": "u"},
            "sources": {"telemetry": folder},
        }
    )


def stored(folder: Path, signed_in: Path | None = None, incident: str = INCIDENT, kind: str = SYNTHESIS_TYPE) -> str:
    """The digest of a synthesis that lies in `folder`, signed by a worker of the pool in `signed_in`."""
    synthesis = Synthesis(
        incident_id=incident,
        diagnosis=diagnosis(Conclusion.ROOT_CAUSE),
        actions=(FLAG,),
        observations=(OBSERVATION,),
        evidence_digest="",
    )
    Pool(folder, "test", "investigate")
    worker = Pool(signed_in or folder, "test", "investigate").worker()
    digest, _ = Evidence(BlobStore(folder / "blobs"), pinned_keys(folder)).store(worker, kind, synthesis)
    return digest


def request(evidence: str | None, **changes: object) -> AccessRequest:
    values: dict[str, object] = {
        "kind": "write",
        "tenant": "test",
        "incident_id": INCIDENT,
        "requester": None,
        "severity": "critical",
        "purpose": "p",
        "references": FLAG.references,
        "intent": {"parameters": FLAG.parameters, "target": FLAG.target},
        "evidence_digest": evidence,
        "policy_digest": "sha256:0",
        "ledger_id": "l",
        "nonce": "n",
        "not_before": "2026-01-01T00:00:00Z",
        "answer_by": "2100-01-01T00:00:00Z",
        "grant_expires_at": "2100-01-01T00:00:00Z",
        **changes,
    }
    return AccessRequest.model_validate(values)


def test_a_worker_s_signed_proposal_may_be_signed_and_read_needs_none(tmp_path: Path) -> None:
    check_evidence(request(stored(tmp_path)), config(tmp_path))
    check_evidence(request(None, kind="read", intent=None), None)


def test_evidence_that_this_user_may_not_read_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(stored(tmp_path))

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # The tests may run as root, whom no mode keeps out.
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(EvidenceOutOfReach, match="Permission denied"):
        check_evidence(asked, config(tmp_path))


OTHER = FLAG.parameters.model_copy(update={"expected_version": 4})


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        (lambda folder: request(None), "without evidence"),
        (lambda folder: request(stored(folder), intent=None), "without an action"),
        (lambda folder: request(stored(folder)[:-1] + "x"), "a blob is named"),
        (lambda folder: request(stored(folder, signed_in=folder / "mallory")), "pinned key"),
        (lambda folder: request(stored(folder, incident="incident-2")), "not a worker's synthesis of this incident"),
        (lambda folder: request(stored(folder, kind=FINDING_TYPE)), "not of the type"),
        (lambda folder: request(stored(folder), intent={"parameters": OTHER, "target": FLAG.target}), "not propose"),
        (lambda folder: request(stored(folder), references=["op://other/item/field"]), "does not propose"),
        (lambda folder: request(stored(folder), tenant="other"), "not a worker's synthesis"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, forged: Callable[[Path], AccessRequest], says: str) -> None:
    with pytest.raises(Terminal, match=says) as refused:
        check_evidence(forged(tmp_path), config(tmp_path))
    assert not isinstance(refused.value, EvidenceOutOfReach)


def test_a_machine_without_evidence_says_so_and_makes_no_folder(tmp_path: Path) -> None:
    for known in (None, config(tmp_path / "nowhere")):
        with pytest.raises(EvidenceOutOfReach, match="--unverified-evidence"):
            check_evidence(request("sha256:" + "1" * 64), known)
    assert list(tmp_path.iterdir()) == []
