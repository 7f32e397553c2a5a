"""What the estate consists of: regions, services, their operations and who calls whom.

The call graph has no cycle and never crosses a region. Every operation of every service lies on a path that
starts at one of the gateway's three routes, so a broken service always shows at the front door.
"""

from __future__ import annotations

from dataclasses import dataclass

REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
GATEWAY = "api-gateway"


@dataclass(frozen=True)
class Operation:
    """One thing a service does: whether it writes, and the (service, operation) pairs it calls, in order."""

    writes: bool = False
    calls: tuple[tuple[str, str], ...] = ()

    @property
    def method(self) -> str:
        """The HTTP method callers use."""
        return "POST" if self.writes else "GET"


@dataclass(frozen=True)
class Service:
    """One service: its operations and the two tables it owns (entities, and details of entities)."""

    name: str
    entity: str
    detail: str
    operations: dict[str, Operation]

    @property
    def database(self) -> str:
        """Its database in each region's cluster."""
        return self.name.replace("-", "_")

    @property
    def role(self) -> str:
        """The PostgreSQL role its pool logs in as."""
        return f"app_{self.database}"

    @property
    def callees(self) -> tuple[str, ...]:
        """The services it calls, each once, sorted."""
        return tuple(sorted({callee for op in self.operations.values() for callee, _ in op.calls}))


_DECLARED = (
    Service(
        GATEWAY,
        "api_clients",
        "client_quotas",
        {
            "checkout": Operation(writes=True, calls=(("auth", "verify"), ("order", "place"))),
            "browse": Operation(calls=(("search", "query"), ("recommendation", "suggest"))),
            "profile": Operation(calls=(("auth", "verify"), ("user", "show"), ("order", "history"))),
        },
    ),
    Service(
        "user",
        "users",
        "user_addresses",
        {"show": Operation(calls=(("notification", "unread"),)), "preferences": Operation()},
    ),
    Service(
        "order",
        "orders",
        "order_lines",
        {
            "place": Operation(writes=True, calls=(("inventory", "reserve"), ("payment", "charge"))),
            "history": Operation(calls=(("payment", "status"),)),
        },
    ),
    Service(
        "payment",
        "payments",
        "payment_attempts",
        {"charge": Operation(writes=True, calls=(("notification", "send"),)), "status": Operation()},
    ),
    Service(
        "inventory",
        "stock_items",
        "stock_movements",
        {"reserve": Operation(writes=True), "levels": Operation()},
    ),
    Service("notification", "messages", "deliveries", {"send": Operation(writes=True), "unread": Operation()}),
    Service("auth", "sessions", "session_scopes", {"verify": Operation()}),
    Service("analytics", "events", "event_tags", {"record": Operation(writes=True), "trends": Operation()}),
    Service(
        "search",
        "documents",
        "document_terms",
        {"query": Operation(calls=(("inventory", "levels"), ("analytics", "record")))},
    ),
    Service(
        "recommendation",
        "taste_profiles",
        "profile_items",
        {"suggest": Operation(calls=(("user", "preferences"), ("analytics", "trends")))},
    ),
)

SERVICES: dict[str, Service] = {service.name: service for service in _DECLARED}

# What the load generator asks for, in turn: every service but the gateway lies on at least half of these.
ROUTES = ("checkout", "browse", "profile", "browse")

ENTITIES = 2000  # rows in each entity table, so ids run from 1 to this
DETAILS = 6000  # rows in each detail table


def instance_name(service: str) -> str:
    """The one instance (pod) each service has in each region."""
    return f"{service}-1"


def calls() -> list[tuple[str, str]]:
    """The edges (caller, callee) of the call graph, the same in each region."""
    return [(name, callee) for name, service in SERVICES.items() for callee in service.callees]


def catalogue() -> dict[str, object]:
    """`catalogue.json` of the telemetry directory, format `recording/1`, plus each service's database."""
    return {
        "format": "recording/1",
        "regions": list(REGIONS),
        "services": [{"region": region, "service": name} for region in REGIONS for name in SERVICES],
        "calls": [
            {"region": region, "caller": caller, "callee": callee} for region in REGIONS for caller, callee in calls()
        ],
        "databases": [
            {"region": region, "service": name, "database": service.database}
            for region in REGIONS
            for name, service in SERVICES.items()
        ],
    }
