"""An open grant as the tools see it: a way to one secret at a time, for one holder."""

from dataclasses import dataclass

from oncall.access.read import ReadBroker
from pydantic import SecretStr


@dataclass(frozen=True)
class Held:
    """A READ grant in the hands of one agent. The broker checks grant, scope and expiry at every reveal."""

    broker: ReadBroker
    grant_digest: str
    holder: str

    async def reveal(self, reference: str) -> SecretStr:
        """The secret behind an `op://` reference of the grant."""
        return await self.broker.reveal(self.grant_digest, reference, self.holder)


class RequestMeter:
    """Counts requests to the vault once each, however many agents caused them together."""

    def __init__(self, broker: ReadBroker) -> None:
        self._broker = broker
        self._told = 0

    def take(self) -> int:
        """The requests made since the last take."""
        made = self._broker.secret_requests - self._told
        self._told += made
        return made
