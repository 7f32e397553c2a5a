"""Which remedy serves which action: one line each."""

from typing import Any

from oncall.config import References
from oncall.model.action import DisableFlag, KillQueries, Parameters
from oncall.model.errors import ErrorCode, Terminal
from oncall.remedies.disable_flag import DisableFlagRemedy
from oncall.remedies.kill_queries import KillQueriesRemedy
from oncall.remedies.remedy import Remedy


class Catalogue:
    """The remedies of a worker, whose own configuration says where their credentials are."""

    def __init__(self, references: References) -> None:
        self._remedies: dict[type[Parameters], Remedy[Any]] = {
            DisableFlag: DisableFlagRemedy(references.flags_write),
            KillQueries: KillQueriesRemedy(references.database_write),
        }

    def remedy(self, parameters: Parameters) -> Remedy[Any]:
        """The remedy for these parameters. Raises Terminal(POLICY_FORBIDS) for a type that has none."""
        try:
            return self._remedies[type(parameters)]
        except KeyError:
            raise Terminal(ErrorCode.POLICY_FORBIDS, f"no remedy for {parameters.type}") from None
