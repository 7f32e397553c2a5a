"""The investigators: five specialists, one agent per specialist, service and region."""

from enum import StrEnum

from oncall.model.frozen import Frozen


class Specialist(StrEnum):
    """A focus with its own set of tools."""

    DATABASE = "database"
    CACHE = "cache"
    NETWORK = "network"
    RESOURCES = "resources"
    LOGS = "logs"


class Agent(Frozen):
    """One place on the roster."""

    specialist: Specialist
    service: str
    region: str
