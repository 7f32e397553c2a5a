"""The SQL: what the template cluster is filled with, and what the services run."""

from __future__ import annotations

from estate.topology import DETAILS, ENTITIES, SERVICES, Service

# How long one row of the runaway query takes. Working 0.5 to 2 ms and then resting keeps a backend at a few
# percent of a core: the outage is the same as with a hot query, and the host's other work does not starve.
_REST_S = 0.03

STATEMENT_TIMEOUT_S = 90


def lookup(service: Service) -> str:
    """The ordinary read: one row by primary key ($1)."""
    return f"SELECT e.id, e.code, e.status, e.tier, e.amount_cents FROM {service.entity} e WHERE e.id = $1"


def joined_lookup(service: Service) -> str:
    """The harmless variant: the row with totals over its details, through the index on the foreign key."""
    return (
        f"SELECT e.id, e.code, e.status, e.tier, e.amount_cents, count(d.id) AS details,"
        f" coalesce(sum(d.quantity), 0) AS quantity FROM {service.entity} e"
        f" LEFT JOIN {service.detail} d ON d.parent_id = e.id WHERE e.id = $1 GROUP BY e.id"
    )


def runaway_lookup(service: Service) -> str:
    """The runaway variant: scores one row against every detail in the table, for minutes."""
    return (
        f"SELECT e.id, e.code, e.status, e.tier, e.amount_cents,"
        f" avg({service.database}_affinity(e.code, d.id)) AS affinity FROM {service.entity} e"
        f" CROSS JOIN {service.detail} d WHERE e.id = $1 GROUP BY e.id"
    )


def touch(service: Service) -> str:
    """The write of a writing operation."""
    return f"UPDATE {service.entity} SET updated_at = now(), amount_cents = amount_cents + 1 WHERE id = $1"


def tables(service: Service, seed: int) -> str:
    """Creates and fills a service's tables; run in its database as superuser.

    `tier` is NULL in three rows of four: code that forgets that fails on most requests.
    """
    return f"""
    SELECT setseed({(seed % 1000) / 1000});
    CREATE TABLE {service.entity} (
        id bigint PRIMARY KEY, code text NOT NULL, status text NOT NULL, tier text,
        amount_cents integer NOT NULL, updated_at timestamptz NOT NULL) WITH (fillfactor = 70);
    CREATE TABLE {service.detail} (
        id bigint PRIMARY KEY, parent_id bigint NOT NULL REFERENCES {service.entity}, kind text NOT NULL,
        quantity integer NOT NULL, note text NOT NULL);
    INSERT INTO {service.entity}
        SELECT n, upper(substr(md5(random()::text), 1, 10)), (ARRAY['open','held','done','void'])[1 + n % 4],
            CASE WHEN n % 4 = 0 THEN (ARRAY['basic','plus','pro'])[1 + n % 3] END,
            (random() * 90000)::int, now() - random() * interval '90 days'
        FROM generate_series(1, {ENTITIES}) n;
    INSERT INTO {service.detail}
        SELECT n, 1 + (random() * {ENTITIES - 1})::int, (ARRAY['a','b','c'])[1 + n % 3],
            1 + (random() * 9)::int, md5(random()::text) FROM generate_series(1, {DETAILS}) n;
    CREATE INDEX ON {service.entity} (status);
    CREATE INDEX ON {service.detail} (parent_id);
    CREATE FUNCTION {service.database}_affinity(code text, detail bigint) RETURNS double precision
        LANGUAGE plpgsql STABLE AS $$
        DECLARE hits bigint;
        BEGIN
            SELECT count(*) INTO hits FROM {service.detail} WHERE note LIKE '%' || lower(left(code, 3)) || '%';
            PERFORM pg_sleep({_REST_S});
            RETURN hits / (1.0 + detail);
        END $$;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {service.role};
    ANALYZE;
    """


def roles() -> list[str]:
    """Creates every role, without passwords: each region's cluster gets its own when it starts."""
    app = [
        f"CREATE ROLE {service.role} LOGIN; ALTER ROLE {service.role} SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'"
        for service in SERVICES.values()
    ]
    return [
        *app,
        "CREATE ROLE oncall_read LOGIN IN ROLE pg_monitor, pg_use_reserved_connections",
        "ALTER ROLE oncall_read SET default_transaction_read_only = on",
        "ALTER ROLE oncall_read SET statement_timeout = '5s'",
        "CREATE ROLE oncall_write LOGIN IN ROLE pg_monitor, pg_signal_backend, pg_use_reserved_connections",
        "ALTER ROLE oncall_write SET statement_timeout = '10s'",
    ]


# A long query of a service: what the estate itself counts, apart from anything the product's tools do.
RUNAWAYS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active'"
    " AND usename LIKE 'app\\_%' AND now() - query_start > interval '3 seconds'"
)
STOP_RUNAWAYS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " AND state = 'active' AND usename = $1 AND now() - query_start > interval '1 second'"
)
