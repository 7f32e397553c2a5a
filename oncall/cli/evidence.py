"""Whether the evidence behind a WRITE request is what it claims to be, checked before anybody signs.

A request comes out of Temporal, where whoever may start workflows can make one. What a worker has signed does not: the
synthesis that a request names must be in blob storage, signed by a worker of a pinned pool, about this incident, and
must propose exactly the action that is asked for.
"""

import os
from pathlib import Path

from activities.evidence import Evidence
from oncall.blobs.store import BlobStore
from oncall.config import Config
from oncall.model.access import AccessKind, AccessRequest
from oncall.model.errors import ErrorCode, OncallError, Terminal
from oncall.rules.text import plain
from oncall.temporal.pools import pinned_keys


class EvidenceOutOfReach(Terminal):
    """This machine holds no evidence, so that nothing can be said about it."""

    def __init__(self, why: str) -> None:
        advice = "answer from a machine that shares the workers' state folder, or give --unverified-evidence"
        super().__init__(ErrorCode.SIGNATURE_REFUSED, f"{why}, so the evidence cannot be verified; {advice}")


def check_evidence(request: AccessRequest, config: Config | None) -> None:
    """Returns when the request may be signed. READ needs no evidence: it comes before any.

    Raises EvidenceOutOfReach when there is no configuration or no blob storage here, and Terminal(SIGNATURE_REFUSED)
    when the evidence is not what it should be.
    """
    if request.kind is AccessKind.READ and request.intent is None:
        return
    if request.evidence_digest is None or request.intent is None:
        raise _refused("a WRITE request without evidence or without an action")
    if config is None:
        raise EvidenceOutOfReach("there is no oncall.yaml here")
    evidence = _evidence(config.state)
    try:
        synthesis = evidence.synthesis(request.evidence_digest, request.tenant, request.incident_id)
    except OncallError as error:
        raise _refused(plain(error.message)) from None
    asked = (request.intent.parameters, request.intent.target, request.references)
    if asked not in [(action.parameters, action.target, action.references) for action in synthesis.actions]:
        raise _refused("the evidence does not propose this action with these parameters and references")
    if request.tenant != config.tenant:
        raise _refused(f"the request is for the tenant {plain(request.tenant)!r}, not {config.tenant!r}")


def _evidence(state: Path) -> Evidence:
    blobs = state / "blobs"
    try:
        # Workers keep both private: somebody else's login on their host may not even look.
        os.scandir(blobs).close()
        return Evidence(BlobStore(blobs), pinned_keys(state))
    except FileNotFoundError:
        raise EvidenceOutOfReach(f"there is no blob storage at {blobs}") from None
    except OSError as error:
        raise EvidenceOutOfReach(f"{error.filename}: {error.strerror}") from None


def _refused(why: str) -> Terminal:
    return Terminal(ErrorCode.SIGNATURE_REFUSED, f"not signing: {why}")
