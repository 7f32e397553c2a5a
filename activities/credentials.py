"""An open grant as the tools see it: a way to one secret at a time, for one holder."""

from dataclasses import dataclass

from pydantic import SecretStr

from oncall.access.read import ReadBroker


@dataclass(frozen=True)
class Held:
    """A READ grant in the hands of one agent. The broker checks grant, scope and expiry at every reveal."""

    broker: ReadBroker
    grant_digest: str
    holder: str
    incident_id: str

    async def reveal(self, reference: str) -> SecretStr:
        """The secret behind an `op://` reference of the grant."""
        return await self.broker.reveal(self.grant_digest, reference, self.holder, self.incident_id)
