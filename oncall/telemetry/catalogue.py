"""`catalogue.json`, formats `recording/1`: the regions, services and calls of a source."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.topology import Call, Instance, Topology


class _Catalogue(BaseModel):
    # Other fields may be there: a source adds what its own tools need.
    model_config = ConfigDict(extra="ignore")

    format: str
    regions: tuple[str, ...]
    services: tuple[Instance, ...]
    calls: tuple[Call, ...] = ()


def read_catalogue(path: Path) -> Topology:
    """The topology in `path`.

    Raises Retryable(TELEMETRY_UNAVAILABLE) while it cannot be read, and Terminal when it is not a catalogue.
    """
    try:
        catalogue = _Catalogue.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise Retryable(ErrorCode.TELEMETRY_UNAVAILABLE, f"{path}: {error.strerror}") from None
    except (ValueError, ValidationError):
        raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, f"{path}: not a catalogue of telemetry") from None
    if catalogue.format != "recording/1":
        raise Terminal(ErrorCode.TELEMETRY_UNAVAILABLE, f"{path}: unknown format; recording/1 is known") from None
    return Topology(regions=catalogue.regions, services=catalogue.services, calls=catalogue.calls)
