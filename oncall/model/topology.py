"""Regions, services, and who calls whom: data, never code."""

from oncall.model.frozen import Frozen


class Instance(Frozen):
    """A service in a region."""

    region: str
    service: str


class Call(Frozen):
    """One edge of the call graph within a region."""

    region: str
    caller: str
    callee: str


class Topology(Frozen):
    """The estate as the catalogue describes it."""

    regions: tuple[str, ...]
    services: tuple[Instance, ...]
    calls: tuple[Call, ...]

    def callees(self, region: str, service: str) -> tuple[str, ...]:
        """The services that `service` calls in `region`."""
        return tuple(c.callee for c in self.calls if c.region == region and c.caller == service)

    def callers(self, region: str, service: str) -> tuple[str, ...]:
        """The services that call `service` in `region`."""
        return tuple(c.caller for c in self.calls if c.region == region and c.callee == service)

    def entrances(self, region: str) -> tuple[str, ...]:
        """The services of `region` that call others and that nobody calls: where users come in."""
        called = {c.callee for c in self.calls if c.region == region}
        calling = {c.caller for c in self.calls if c.region == region}
        return tuple(sorted(calling - called))
