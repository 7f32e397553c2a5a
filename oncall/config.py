"""Loads `oncall.yaml` and `policy.yaml`: worker-local facts that no workflow can override.

Any path in `oncall.yaml` is relative to the file itself. A mistake is one line: file, field, what is wrong.
"""

import os
import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from oncall.model.access import Approvers
from oncall.model.errors import ErrorCode, Terminal
from oncall.model.frozen import Frozen
from oncall.model.policy import Policy

ENV_CONFIG = "ONCALL_CONFIG"

Model = TypeVar("Model", bound=BaseModel)


class ConnectConfig(Frozen):
    """A 1Password Connect server, and the files that hold its tokens.

    `read_token_file` is for workers that investigate, `write_token_file` for those that remediate; none needs both.
    """

    url: str
    read_token_file: Path | None = None
    write_token_file: Path | None = None


def in_region(template: str, region: str) -> str:
    """A reference with `{region}` replaced. Nothing else in it has a meaning."""
    return template.replace("{region}", region)


class References(Frozen):
    """Where the credentials are, as `op://` references; `{region}` stands for a region's section."""

    database_read: str = "op://Infrastructure/prod-db-readonly/{region}"
    cache_read: str = "op://Infrastructure/cache-readonly/{region}"
    instances_read: str = "op://Infrastructure/k8s-prod-readonly/credential"
    database_write: str = "op://Infrastructure-Write/prod-db-rwaccess/{region}"
    cloudwatch_read: str = "op://Infrastructure/aws-cloudwatch/credential"
    flags_write: str = "op://Infrastructure-Write/config-service"

    @field_validator("*")
    @classmethod
    def _a_reference(cls, value: str) -> str:
        if not re.fullmatch(r"op://[^/]+/[^/]+(/[^/]+)*", value) or set(re.findall(r"\{.*?\}", value)) - {"{region}"}:
            raise ValueError("expected op://vault/item, with {region} for a region's section and no other braces")
        return value

    def read_set(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        """Every READ reference of these regions: what a human opens when they approve READ access."""
        per_region = (self.database_read, self.cache_read)
        fields = ("username", "password", "server")
        return (
            *(f"{in_region(base, r)}/{field}" for base in per_region for r in regions for field in fields),
            self.instances_read,
            self.cloudwatch_read,
        )


class SourcesConfig(Frozen):
    """What is read: a folder of Parquet telemetry with its catalogue, and the instance registry's URL.

    `recordings` is the folder below which recorded incidents may be named.
    """

    telemetry: Path
    instances: str | None = None
    recordings: Path | None = None


class IncidentConfig(Frozen):
    """Defaults of an incident."""

    answer_by_s: int = Field(default=1800, ge=1, le=7 * 24 * 3600)
    grant_s: int = Field(default=3600, ge=60, le=12 * 3600)
    quorum: float = Field(default=0.8, gt=0, le=1)
    lookback_s: int = Field(default=300, ge=60, le=24 * 3600)


class ShiftConfig(Frozen):
    """A shift: its rhythm, and the thresholds beyond which a figure is a problem.

    A figure counts once it has been out of range for `for_s`. Errors: `error_percent` of a service's requests. Latency:
    `latency_ratio` times what it was over `lookback_s`, and at least `latency_ms` more. Saturation:
    `saturation_percent` of what there is. A group that reaches users with `critical_error_percent` is critical.
    """

    interval_s: float = Field(default=30, ge=0.5, le=24 * 3600)
    lookback_s: int = Field(default=900, ge=60, le=24 * 3600)
    for_s: float = Field(default=10, ge=2, le=3600)
    error_percent: float = Field(default=5, gt=0, le=100)
    critical_error_percent: float = Field(default=20, gt=0, le=100)
    latency_ratio: float = Field(default=3, gt=1)
    latency_ms: float = Field(default=100, ge=0)
    saturation_percent: float = Field(default=90, gt=0, le=100)
    clear_s: float = Field(default=60, ge=0, le=24 * 3600)
    answer_by_s: int = Field(default=1800, ge=1, le=12 * 3600)
    grant_s: int = Field(default=8 * 3600, ge=300, le=12 * 3600)
    renew_before_s: int = Field(default=1800, ge=60, le=6 * 3600)
    max_incidents: int = Field(default=3, ge=1, le=50)


class Config(Frozen):
    """The whole of `oncall.yaml`."""

    tenant: str = Field(default="oncall", pattern=r"^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$")
    state: Path
    approvers: Path
    policy: Path
    connect: ConnectConfig
    sources: SourcesConfig
    references: References = References()
    incident: IncidentConfig = IncidentConfig()
    shift: ShiftConfig = ShiftConfig()


def _read(path: Path, model: type[Model]) -> Model:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}{where}: {error.problem or 'not valid YAML'}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: not valid YAML") from None
    if not isinstance(data, dict):
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: expected a mapping of settings")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise Terminal(ErrorCode.BAD_CONFIG, f"{path}: {field}: {first['msg']}") from None


def load_config(path: Path | None = None) -> Config:
    """`oncall.yaml` at `path`, else at `$ONCALL_CONFIG`, else in the working directory, with absolute paths.

    Raises Terminal(BAD_CONFIG) with one line that names the file and the field.
    """
    path = (path or Path(os.environ.get(ENV_CONFIG, "oncall.yaml"))).absolute()
    config = _read(path, Config)
    base = path.parent
    connect = config.connect.model_copy(
        update={
            name: base / value
            for name in ("read_token_file", "write_token_file")
            if (value := getattr(config.connect, name)) is not None
        }
    )
    recordings = config.sources.recordings
    sources = config.sources.model_copy(
        update={
            "telemetry": base / config.sources.telemetry,
            "recordings": None if recordings is None else base / recordings,
        }
    )
    return config.model_copy(
        update={
            "state": base / config.state,
            "approvers": base / config.approvers,
            "policy": base / config.policy,
            "connect": connect,
            "sources": sources,
        }
    )


def load_policy(path: Path) -> Policy:
    """The policy at `path`. Raises Terminal(BAD_CONFIG)."""
    return _read(path, Policy)


class _People(Frozen):
    people: dict[str, str]


def load_approvers(directory: Path) -> Approvers:
    """`allowed_signers` and `people.yaml` (`people: {"SHA256:…": name}`) in `directory`.

    Raises Terminal(BAD_CONFIG).
    """
    signers = directory / "allowed_signers"
    try:
        text = signers.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Terminal(ErrorCode.BAD_CONFIG, f"{signers}: cannot be read; run `starter.py keys init` first") from None
    return Approvers(allowed_signers=text, people=_read(directory / "people.yaml", _People).people)
