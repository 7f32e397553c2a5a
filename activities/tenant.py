"""A worker serves one tenant: whoever else's work reaches its queue is refused before anything is looked at."""

from oncall.config import Config
from oncall.model.errors import ErrorCode, Terminal


def check_tenant(config: Config, tenant: str, what: str) -> None:
    """Raises Terminal(BAD_CONFIG) naming both tenants when `what` (such as "the incident") is not of this worker's."""
    if tenant != config.tenant:
        raise Terminal(
            ErrorCode.BAD_CONFIG, f"{what} is of tenant {tenant!r}, and this worker serves {config.tenant!r}"
        )
