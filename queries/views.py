"""The views that every question sees: `events` over the Parquet files, and two readings of it.

`events` has one row for each event and the column `date` besides (the UTC day of `occurred_at`), by which whole files
are skipped. `requests` has one row for each intake, `crossings` one for each intended call to a hosted model. An intent
is of a hosted model by definition; a copy of another site that lacks `route.placement` has its crossings all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa

from evidence.schema import DICTIONARY, EVENTS_SCHEMA

REQUESTS: Final = """
CREATE VIEW requests AS
SELECT
    intake_id,
    any_value(request_id) AS request_id,
    any_value(correlation_id) AS correlation_id,
    any_value(trace_id) AS trace_id,
    any_value(tenant_ref) AS tenant_ref,
    any_value(actor_ref) AS actor_ref,
    any_value(task_type) AS task_type,
    any_value(purpose) AS purpose,
    min(occurred_at) FILTER (WHERE event_type IN ('request.admitted', 'request.rejected')) AS admitted_at,
    max(occurred_at) FILTER (WHERE outcome IS NOT NULL) AS ended_at,
    (epoch_us(max(occurred_at) FILTER (WHERE outcome IS NOT NULL)) - epoch_us(min(occurred_at))) / 1000
        AS duration_ms,
    any_value(outcome) FILTER (WHERE outcome IS NOT NULL) AS outcome,
    arg_max(classification.effective, sequence) FILTER (WHERE classification IS NOT NULL) AS class,
    arg_max(classification.findings, sequence) FILTER (WHERE classification IS NOT NULL) AS findings,
    arg_max(route.name, sequence) FILTER (WHERE route IS NOT NULL) AS route,
    arg_max(route.placement, sequence) FILTER (WHERE route IS NOT NULL) AS placement,
    arg_max(route.provider, sequence) FILTER (WHERE route IS NOT NULL) AS provider,
    arg_max(route.model, sequence) FILTER (WHERE route IS NOT NULL) AS model,
    arg_max(route.region, sequence) FILTER (WHERE route IS NOT NULL) AS region,
    coalesce(max(attempt) FILTER (WHERE event_type LIKE 'model.%'), 0) AS attempts,
    count(*) FILTER (WHERE event_type = 'model.intended' AND route.placement IS DISTINCT FROM 'local')
        AS hosted_calls,
    CAST(coalesce(sum(usage.input_tokens) FILTER (WHERE event_type IN ('model.completed', 'model.failed')), 0)
        AS BIGINT) AS input_tokens,
    CAST(coalesce(sum(usage.output_tokens) FILTER (WHERE event_type IN ('model.completed', 'model.failed')), 0)
        AS BIGINT) AS output_tokens,
    coalesce(sum(usage.cost_usd) FILTER (WHERE event_type IN ('model.completed', 'model.failed')), 0) AS cost_usd,
    arg_max(failure.code, sequence) FILTER (WHERE failure IS NOT NULL) AS failure_code,
    any_value(duplicate_of) AS duplicate_of,
    count(*) AS events
FROM events
WHERE stage <> 'operator'
GROUP BY intake_id
"""

CROSSINGS: Final = """
CREATE VIEW crossings AS
SELECT
    intent.event_id AS intent_id,
    intent.request_id,
    intent.intake_id,
    intent.trace_id,
    intent.tenant_ref,
    intent.actor_ref,
    intent.purpose,
    intent.classification.effective AS class,
    intent.route.name AS route,
    intent.route.provider AS provider,
    intent.route.model AS model,
    intent.route.region AS region,
    intent.waybill_hash,
    intent.attempt,
    intent.occurred_at AS intended_at,
    ending.occurred_at AS ended_at,
    CASE ending.event_type WHEN 'model.completed' THEN 'completed' WHEN 'model.failed' THEN 'failed' ELSE 'open' END
        AS result,
    ending.failure.code AS failure_code,
    ending.duration_ms,
    ending.usage.input_tokens AS input_tokens,
    ending.usage.output_tokens AS output_tokens,
    ending.usage.cost_usd AS cost_usd,
    intent.consent.basis AS consent_basis,
    intent.approval.approver AS approver
FROM events AS intent
LEFT JOIN events AS ending
    ON ending.intent_id = intent.event_id AND ending.event_type IN ('model.completed', 'model.failed')
WHERE intent.event_type = 'model.intended' AND intent.route.placement IS DISTINCT FROM 'local'
"""


def events_view(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> str:
    """Give the statement that makes the view `events`; its columns are the schema's, whatever the files hold.

    Args:
        connection: knows the database's names of the types; nothing is left behind in it.
        files: the live files; there may be none.
    """
    plain = pa.schema([field.with_type(pa.string()) if field.type == DICTIONARY else field for field in EVENTS_SCHEMA])
    relation = connection.from_arrow(plain.empty_table())
    columns = [f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in zip(relation.columns, relation.types, strict=True)]
    nothing = f"SELECT {', '.join(columns)}, CAST(NULL AS DATE) AS date WHERE false"
    if not files:
        return f"CREATE OR REPLACE VIEW events AS {nothing}"
    # The directory's `site` would hide the event's own, so the partitions are read from the file's name instead; the
    # database skips files by it as it would by a hive partition.
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
    return (
        f"CREATE OR REPLACE VIEW events AS {nothing} UNION ALL BY NAME SELECT * EXCLUDE (filename), "  # noqa: S608 - the paths are quoted, the rest is ours
        "CAST(regexp_extract(filename, 'date=([0-9]{4}-[0-9]{2}-[0-9]{2})', 1) AS DATE) AS date "
        f"FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = true, filename = true)"
    )
