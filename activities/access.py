"""Opens a READ grant: the broker checks the signed bytes itself, whatever the workflow believes."""

from activities.implements import implements
from oncall.access.read import ReadBroker
from oncall.model.access import Grant
from oncall.model.steps import OPEN_GRANT, OpenGrantIn


class Access:
    """The read side of the broker."""

    def __init__(self, broker: ReadBroker) -> None:
        self._broker = broker

    @implements(OPEN_GRANT)
    async def open_read_grant(self, task: OpenGrantIn) -> Grant:
        """The grant for an approved request, once every reference of it has resolved."""
        return await self._broker.open_grant(task.request, task.decisions)
