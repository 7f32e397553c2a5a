"""One tool call and what it returned."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from oncall.model.frozen import Frozen


class Observation(Frozen):
    """A tool call: which tool, with which arguments, over which range, and the value it returned.

    `value` is JSON. `sha256` is the hex digest of the canonical value. `reproducible` is true for ranged telemetry
    (running it again gives the same digest), false for live probes. `truncated` says which bound cut the value.
    Values may hold untrusted text.
    """

    # `from` is the name that programs know, and no name for a Python attribute.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    id: str
    agent: str
    tool: str
    arguments: dict[str, Any]
    range_from: datetime | None = Field(default=None, alias="from")
    range_to: datetime | None = Field(default=None, alias="to")
    taken_at: datetime
    value: Any
    sha256: str
    reproducible: bool
    truncated: str | None = None
