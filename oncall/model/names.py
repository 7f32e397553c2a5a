"""Names that leave the process: queues, workflow types and ids, signals, queries, search attributes."""

import hashlib
import re
from enum import StrEnum

INCIDENT_WORKFLOW = "incident"
SHIFT_WORKFLOW = "shift"

SIGNAL_DECIDE = "decide"
SIGNAL_ABORT = "abort"
SIGNAL_STOP = "stop"
SIGNAL_GRANT = "grant"
QUERY_STATUS = "status"
QUERY_PROGRESS = "progress"
QUERY_APPROVALS = "approvals"
QUERY_ACCESS = "access"
QUERY_GRANT = "shared_grant"
QUERY_REPORT = "report"


class Queue(StrEnum):
    """Task queues, one per worker role. A queue is an address, not a security boundary."""

    ORCHESTRATE = "oncall-orchestrate"
    INVESTIGATE = "oncall-investigate"
    REMEDIATE = "oncall-remediate"


class SearchAttribute(StrEnum):
    """Keyword search attributes; the namespace must know them before a worker starts."""

    SEVERITY = "OncallSeverity"
    STATUS = "OncallStatus"
    ANOMALY = "OncallAnomaly"
    SERVICE = "OncallService"
    REGION = "OncallRegion"


def incident_workflow_id(fingerprint: str) -> str:
    """The workflow id of an incident: its alert's fingerprint, so that a duplicate joins the running one."""
    return f"incident-{fingerprint}"


def shift_workflow_id(team: str) -> str:
    """The workflow id of a team's shift: there is one at a time."""
    return f"shift-{team}"


def record_folder(incident_id: str, run_id: str) -> str:
    """Where the files of one run of an incident lie, relative to a state folder. Ids come from workflow input."""
    return f"incidents/{path_part(incident_id)}/{path_part(run_id)}"


def path_part(name: str) -> str:
    """`name` as one component of a path."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:120] or "_"


ATTEMPTS_PER_WAVE = 10
"""More than an agent is tried in one wave."""


def attempt_of_wave(wave: int, attempt: int) -> int:
    """The number of an attempt among those of all waves: each has a key of its own, so each has a name of its own."""
    return (wave - 1) * ATTEMPTS_PER_WAVE + attempt


def agent_uri(tenant: str, region: str, incident_id: str, specialist: str, service: str, attempt: int) -> str:
    """The SPIFFE id of one agent attempt (https://spiffe.io/docs/latest/spiffe-about/spiffe-concepts/)."""
    place = "/".join(_segment(name) for name in (region, "incident", incident_id, specialist, service))
    return f"spiffe://{tenant}/{place}/attempt/{attempt}"


def _segment(name: str) -> str:
    """`name` with the characters that a SPIFFE path allows; a hash keeps apart what would otherwise become equal."""
    allowed = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    if allowed == name and name not in ("", ".", ".."):
        return name
    return f"{allowed.strip('.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def attempts_of(uri: str) -> str:
    """What all attempts of one agent share of its SPIFFE id."""
    return uri.rpartition("/attempt/")[0]


def pool_uri(tenant: str, name: str) -> str:
    """The SPIFFE id of a pool of workers; its key is the one that verifiers pin."""
    return f"spiffe://{tenant}/pool/{name}"


def worker_uri(tenant: str, name: str) -> str:
    """The SPIFFE id of one worker process."""
    return f"spiffe://{tenant}/worker/{name}"
