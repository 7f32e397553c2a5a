"""The base of every noun."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields, so that a renamed field fails loudly at the boundary."""

    model_config = ConfigDict(frozen=True, extra="forbid")
