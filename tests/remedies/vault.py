"""Credentials for a remedy under test: a plain dictionary behind the `Credentials` protocol."""

from dataclasses import dataclass, field

from pydantic import SecretStr

from oncall.model.errors import ErrorCode, Terminal


@dataclass
class Vault:
    """Releases what it holds, and remembers what was asked."""

    items: dict[str, str]
    asked: list[str] = field(default_factory=list)

    async def reveal(self, reference: str) -> SecretStr:
        """As `Credentials.reveal`."""
        self.asked.append(reference)
        if reference not in self.items:
            raise Terminal(ErrorCode.GRANT_SCOPE, "not granted")
        return SecretStr(self.items[reference])
