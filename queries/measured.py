"""What evidence says of a route's cost, capacity and latency, compared with what its decision record assumes.

Calls are told by their ends: `model.completed` and `model.failed` carry how long the call took, so that its begin is
known too. A call whose end is not told (or told without a duration, after a crash) is counted nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from policy.placement.form import DecisionRecord
from policy.placement.pages import assumptions
from queries.database import DEFAULT_TIMEOUT_S, Evidence

_CALLS: Final = """
WITH calls AS (
    SELECT
        route.name AS route,
        route.provider AS provider,
        route.model AS model,
        intake_id,
        event_type = 'model.completed' AS answered,
        occurred_at,
        epoch_us(occurred_at) AS ended_us,
        epoch_us(occurred_at) - CAST(duration_ms * 1000 AS BIGINT) AS begun_us,
        duration_ms,
        usage.cost_usd AS cost_usd
    FROM events
    WHERE event_type IN ('model.completed', 'model.failed') AND route.name IS NOT NULL AND duration_ms IS NOT NULL
        AND (CAST($since AS TIMESTAMPTZ) IS NULL OR occurred_at >= $since)
),
overall AS (
    SELECT
        route,
        list_sort(list(DISTINCT provider)) AS providers,
        list_sort(coalesce(list(DISTINCT model) FILTER (WHERE answered AND provider <> 'stand-in'), [])) AS models,
        count(*) AS calls,
        count(*) FILTER (WHERE answered) AS answered,
        min(occurred_at) AS first_at,
        max(occurred_at) AS last_at,
        quantile_cont(duration_ms, 0.5) FILTER (WHERE answered) AS p50_ms,
        quantile_cont(duration_ms, 0.95) FILTER (WHERE answered) AS p95_ms
    FROM calls GROUP BY route
),
dearest AS (
    SELECT route, max(usd) AS usd_per_request
    FROM (SELECT route, sum(cost_usd) AS usd FROM calls WHERE cost_usd IS NOT NULL GROUP BY route, intake_id)
    GROUP BY route
),
months AS (
    SELECT route, max(usd) AS usd_per_month
    FROM (
        SELECT route, sum(cost_usd) AS usd FROM calls WHERE cost_usd IS NOT NULL
        GROUP BY route, date_trunc('month', occurred_at)
    ) GROUP BY route
),
minutes AS (
    SELECT route, max(calls) AS requests_per_minute
    FROM (SELECT route, count(*) AS calls FROM calls GROUP BY route, begun_us // 60000000) GROUP BY route
),
steps AS (
    SELECT route, begun_us AS at_us, 1 AS step FROM calls UNION ALL SELECT route, ended_us, -1 FROM calls
),
flights AS (
    -- Where one ends as another begins, the end counts first: they are not at the same time.
    SELECT route, max(running) AS in_flight
    FROM (
        SELECT route, sum(step) OVER (PARTITION BY route ORDER BY at_us, step ROWS UNBOUNDED PRECEDING) AS running
        FROM steps
    ) GROUP BY route
)
SELECT
    route, providers, models, calls, answered, first_at, last_at,
    usd_per_request, usd_per_month, requests_per_minute, CAST(in_flight AS BIGINT) AS in_flight, p50_ms, p95_ms
FROM overall
LEFT JOIN dearest USING (route) LEFT JOIN months USING (route)
LEFT JOIN minutes USING (route) LEFT JOIN flights USING (route)
ORDER BY route
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What evidence says of one route."""

    route: str
    """The route."""
    providers: tuple[str, ...]
    """Who answered, sorted; what a stand-in did says nothing of a provider."""
    models: tuple[str, ...]
    """The names under which models answered, sorted, those of a stand-in left out."""
    calls: int
    """Calls that have ended."""
    answered: int
    """Those that were answered."""
    first_at: datetime
    """End of the first of them."""
    last_at: datetime
    """End of the last one."""
    usd_per_request: float | None
    """The dearest request, in US dollars; None where none was answered."""
    usd_per_month: float | None
    """The dearest calendar month (UTC), as far as it has come; never projected."""
    requests_per_minute: int
    """Calls begun in the busiest minute."""
    in_flight: int
    """The most calls at the same time."""
    p50_ms: float | None
    """Median of the answered calls, in milliseconds."""
    p95_ms: float | None
    """Their 95th percentile."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One assumption beside what was measured."""

    route: str
    """The route."""
    what: str
    """The assumption, such as `latency.p95_ms`."""
    assumed: float
    """What the record assumes."""
    tolerance_percent: float
    """By how much it may be exceeded."""
    measured: float | None
    """What evidence says; None where it says nothing."""

    @property
    def over_percent(self) -> float | None:
        """By how much of the assumption it is exceeded, in percent; None where it is not, infinite above nothing."""
        if self.measured is None or self.measured <= self.assumed * (1 + self.tolerance_percent / 100):
            return None
        return (self.measured / self.assumed - 1) * 100 if self.assumed else float("inf")

    @property
    def verdict(self) -> str:
        """`within`, `over by <n> %`, `over (nothing was assumed)` or `no data`."""
        if self.measured is None:
            return "no data"
        over = self.over_percent
        if over is None:
            return "within"
        if not self.assumed:
            return "over (nothing was assumed)"
        return f"over by {max(0.1, over):,.1f}".removesuffix(".0") + " %"


def measure(
    evidence: Evidence, *, since: datetime | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
) -> dict[str, Measured]:
    """Ask evidence about every route that was called.

    Args:
        evidence: the evidence.
        since: calls that ended earlier are left out.
        timeout_s: seconds until the answer is given up.

    Returns:
        The answer by route; a route that was never called has none.

    Raises:
        QueryError: the evidence cannot be read, or the answer took too long.
    """
    with evidence.query(_CALLS, {"since": since}, timeout_s) as rows:
        found = [dict(zip(rows.columns, row, strict=True)) for row in rows]
    return {row["route"]: _measured(row) for row in found}


def _measured(row: dict[str, Any]) -> Measured:
    return Measured(**{**row, "providers": tuple(row["providers"]), "models": tuple(row["models"])})


def compare(record: DecisionRecord, measured: Measured | None) -> tuple[Compared, ...]:
    """Put a record's assumptions beside what was measured."""
    return tuple(
        Compared(
            route=record.route,
            what=what,
            assumed=assumed.value,
            tolerance_percent=assumed.tolerance_percent,
            measured=None if measured is None else getattr(measured, what.partition(".")[2]),
        )
        for what, assumed in assumptions(record).items()
    )


def strangers(record: DecisionRecord, measured: Measured | None) -> tuple[str, ...]:
    """Give the names under which models answered that the record does not pin, sorted."""
    known = {record.pins.artifact.name, record.pins.artifact.version}
    return () if measured is None else tuple(name for name in measured.models if name not in known)


def over(lines: Iterable[Compared]) -> tuple[Compared, ...]:
    """Give those that are exceeded by more than their tolerance."""
    return tuple(line for line in lines if line.over_percent is not None)
