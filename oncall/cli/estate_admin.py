"""The estate's admin API as its client sees it: inject a fault, heal it and, once all is over, ask for the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from oncall.model.errors import ErrorCode, Retryable, Terminal

SCENARIOS = ("cascading_failure", "high_error_rate", "false_alarm")
_TIMEOUT_S = 15.0


class EstateAdmin:
    """A connection to one running estate.

    Every call raises Retryable(TARGET_UNREACHABLE) when it does not answer, Terminal(BAD_CONFIG) when it refuses.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url
        self._token_file = token_file

    async def inject(self, scenario: str, seed: int) -> str:
        """Switches a fault on and returns its id; where it is stays the estate's secret."""
        fault = await self._call("POST", "/faults", {"scenario": scenario, "seed": seed})
        return str(fault["fault_id"])

    async def heal(self, fault_id: str) -> None:
        """Takes a fault away."""
        await self._call("DELETE", f"/faults/{fault_id}")

    async def truth(self, fault_id: str) -> dict[str, Any]:
        """`{region, service, specialist, flag}` of a fault, nulls where nothing was wrong.

        To be asked only after the incident has closed.
        """
        faults = await self._call("GET", "/faults")
        return next(dict(fault["expected"]) for fault in faults if fault["fault_id"] == fault_id)

    async def runaways(self) -> dict[str, int]:
        """How many runaway queries `pg_stat_activity` shows, by region."""
        state = await self._call("GET", "/state")
        return {region: int(facts["runaways"]) for region, facts in state["regions"].items()}

    async def flags(self) -> dict[str, dict[str, bool]]:
        """Which flags are on, by region."""
        state = await self._call("GET", "/state")
        return {
            region: {key: bool(flag["enabled"]) for key, flag in facts["flags"].items()}
            for region, facts in state["regions"].items()
        }

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
            async with httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT_S, trust_env=False) as client:
                headers = {"Authorization": f"Bearer {token}"}
                answer = await client.request(method, path, json=body, headers=headers)
        except (httpx.HTTPError, OSError):
            message = f"the estate's admin API at {self._url} does not answer; see the estate's log"
            raise Retryable(ErrorCode.TARGET_UNREACHABLE, message) from None
        if answer.is_error:
            message = f"the estate refused {method} {path} with {answer.status_code}"
            raise Terminal(ErrorCode.BAD_CONFIG, message)
        return answer.json() if answer.content else None
