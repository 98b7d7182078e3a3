"""The panels of the dashboard, as data: what each asks Prometheus, in which unit, and what its colours mean.

Every query matches `job`, `site` and `instance`, so that one Prometheus may watch several pipelines. A counter is only
ever read through `rate()` or `increase()`: its raw value falls to zero with each restart of a worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

TROUBLE: Final = "failed|unknown|expired"
"""Outcomes that mean trouble; `denied`, `rejected` and `withheld` mean that policy did its work."""

_IN_TROUBLE: Final = f'outcome=~"{TROUBLE}"'
_MATCHERS: Final = 'job=~"$job", site=~"$site", instance=~"$instance"'
_RATE: Final = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus."""

    expr: str
    """PromQL, with the dashboard's variables in it."""

    legend: str
    """How a line is called; `{{label}}` stands for a label's value."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel."""

    title: str
    """Its title, unique on the dashboard."""

    about: str
    """What it shows and when to worry, for the person who hovers over the title."""

    unit: str
    """Grafana's name of the unit."""

    queries: tuple[Query, ...]
    """What it asks."""

    kind: Literal["stat", "timeseries"] = "timeseries"
    """One number, or lines over time."""

    span: int = 8
    """Width, of 24."""

    steps: tuple[tuple[float, str], ...] = ()
    """From which value on it takes which colour; below the first it is green."""

    stacked: bool = False
    """Whether the lines add up to something."""

    top: float | None = None
    """The highest value there can be; None where there is no such value."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    """The heading."""

    panels: tuple[Panel, ...] = field(default_factory=tuple)
    """Its panels, from left to right."""


def _of(metric: str, *more: str) -> str:
    """Give a metric's selector."""
    return f"{metric}{{{', '.join((_MATCHERS, *more))}}}"


def _rate(by: str, metric: str, *more: str) -> str:
    """Give a counter's rate per second, summed over all workers."""
    group = f" by ({by}) " if by else ""
    return f"sum{group}(rate({_of(metric, *more)}{_RATE}))"


def _rise(by: str, metric: str) -> str:
    """Give by how much a counter rose in an interval, summed over all workers."""
    return f"sum by ({by}) (increase({_of(metric)}{_RATE}))"


def _quantile(share: float, metric: str, *more: str, by: str = "") -> str:
    """Give a quantile of a histogram."""
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({group}) (rate({_of(f'{metric}_bucket', *more)}{_RATE})))"


def _quantiles(metric: str, *more: str) -> tuple[Query, ...]:
    return tuple(Query(_quantile(share, metric, *more), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99))


def _by_stage(share: float) -> Panel:
    name = f"p{share * 100:.0f}"
    return Panel(
        f"Time in each stage, {name}",
        f"{name} of the seconds that a request spends in each stage: admission (from its arrival on the topic), queue "
        "(until dispatch takes it), intent (until its intent is durable), model, finish (until its end is durable).",
        "s",
        (Query(_quantile(share, "waybill_stage_seconds", 'stage!="total"', by="stage"), "{{stage}}"),),
        span=6,
    )


_OVERVIEW: Final = Row(
    "At a glance",
    (
        Panel(
            "Workers up",
            "Workers that Prometheus reached at its last try.",
            "none",
            (Query(f"sum({_of('up')})", "workers"),),
            kind="stat",
            span=3,
        ),
        Panel(
            "Requests ended",
            "Requests that ended per second, however they ended.",
            "reqps",
            (Query(_rate("", "waybill_requests_total"), "requests"),),
            kind="stat",
            span=3,
        ),
        Panel(
            "Share in trouble",
            "Of the requests that ended, the share that failed, expired, or whose fate at a provider is unknown. "
            "Denied, rejected and withheld are not in it: there, policy did its work.",
            "percentunit",
            (
                Query(
                    f"({_rate('', 'waybill_requests_total', _IN_TROUBLE)} or vector(0))"
                    f" / {_rate('', 'waybill_requests_total')}",
                    "in trouble",
                ),
            ),
            kind="stat",
            span=3,
            steps=((0.01, "orange"), (0.05, "red")),
            top=1,
        ),
        Panel(
            "In flight",
            "Requests that are being served now.",
            "none",
            (Query(f"sum({_of('waybill_in_flight')})", "requests"),),
            kind="stat",
            span=3,
        ),
        Panel(
            "Overdue requests",
            "Requests that were admitted and should have ended, and have not. Each one is a broken promise.",
            "none",
            (Query(f"sum({_of('waybill_overdue_stories')})", "requests"),),
            kind="stat",
            span=3,
            steps=((1, "red"),),
        ),
        Panel(
            "Dead letters",
            "Records that went to the dead letters in the time range shown.",
            "none",
            (Query(f"sum(increase({_of('waybill_dead_letters_total')}[$__range])) or vector(0)", "records"),),
            kind="stat",
            span=3,
            steps=((1, "orange"),),
        ),
        Panel(
            "Evidence freshness",
            "How old the oldest event of the last flush was when it could be queried. It stands still without traffic.",
            "s",
            (Query(f"max({_of('waybill_evidence_freshness_seconds')})", "age"),),
            kind="stat",
            span=3,
            steps=((10, "orange"), (30, "red")),
        ),
        Panel(
            "Backlog",
            "Records that wait to be read, over all stages.",
            "none",
            (
                Query(
                    f"sum(max by (job, site, stage, topic, partition) ({_of('waybill_lag_records')}))",
                    "records",
                ),
            ),
            kind="stat",
            span=3,
            steps=((1_000, "orange"), (10_000, "red")),
        ),
    ),
)

_TRAFFIC: Final = Row(
    "Traffic and outcomes",
    (
        Panel(
            "Admissions by result",
            "Requests that admission decided on, per second: admitted, denied by policy, or rejected as broken.",
            "reqps",
            (Query(_rate("result", "waybill_admissions_total"), "{{result}}"),),
            span=6,
            stacked=True,
        ),
        Panel(
            "Requests ended by outcome",
            "Requests that ended, per second. `unknown` is a hosted call whose answer is lost: it is reconciled, "
            "never repeated blindly.",
            "reqps",
            (Query(_rate("outcome", "waybill_requests_total"), "{{outcome}}"),),
            span=6,
            stacked=True,
        ),
        Panel(
            "Requests ended by placement",
            "Where the requests that ended were answered; `none` where no model answered.",
            "reqps",
            (Query(_rate("placement", "waybill_requests_total"), "{{placement}}"),),
            span=6,
            stacked=True,
        ),
        Panel(
            "In flight by placement",
            "Requests that are being served now, on each side of the boundary. A line that is flat at its limit "
            "(WAYBILL_MAX_LOCAL, WAYBILL_MAX_HOSTED) means that models are the bottleneck.",
            "none",
            (Query(f"sum by (placement) ({_of('waybill_in_flight')})", "{{placement}}"),),
            span=6,
        ),
    ),
)

_LATENCY: Final = Row(
    "Latency",
    (
        Panel(
            "Time from admission to end",
            "Seconds from a request's admission until its response is durable, model included.",
            "s",
            _quantiles("waybill_stage_seconds", 'stage="total"'),
            span=6,
        ),
        _by_stage(0.5),
        _by_stage(0.95),
        _by_stage(0.99),
        Panel(
            "Time of a transaction, p50 and p99",
            "Seconds that committing one Kafka transaction takes, by stage. It is shared by all requests in it.",
            "s",
            (
                Query(_quantile(0.5, "waybill_transaction_seconds", by="stage"), "{{stage}} p50"),
                Query(_quantile(0.99, "waybill_transaction_seconds", by="stage"), "{{stage}} p99"),
            ),
            span=12,
        ),
        Panel(
            "Transactions",
            "Transactions committed per second, by stage. Requests per transaction grow with load.",
            "ops",
            (Query(_rate("stage", "waybill_transaction_seconds_count"), "{{stage}}"),),
            span=12,
        ),
    ),
)

_MODELS: Final = Row(
    "Models",
    (
        Panel(
            "Attempts by route, provider and result",
            "Calls to models per second. A result other than `completed` and `refused` is the code of a failure.",
            "reqps",
            (
                Query(
                    _rate("route, provider, result", "waybill_attempts_total"), "{{route}} · {{provider}} · {{result}}"
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Tokens",
            "Tokens read and generated per second, by route, as the destinations count them.",
            "cps",
            (Query(_rate("route, direction", "waybill_tokens_total"), "{{route}} {{direction}}"),),
        ),
        Panel(
            "Cost per hour",
            "US dollars per hour at the present rate, by route, by the prices in the route table.",
            "currencyUSD",
            (Query(f"{_rate('route', 'waybill_cost_usd_total')} * 3600", "{{route}}"),),
            stacked=True,
        ),
    ),
)

_EVIDENCE: Final = Row(
    "Evidence",
    (
        Panel(
            "Evidence freshness over time",
            "How old the oldest event of the last flush was when it could be queried; it should stay near "
            "WAYBILL_FRESHNESS_SECONDS.",
            "s",
            (
                Query(f"max by (instance) ({_of('waybill_evidence_freshness_seconds')})", "{{instance}}"),
                Query(f"max by (instance) ({_of('waybill_evidence_waiting_seconds')})", "{{instance}} waiting"),
            ),
            span=8,
            steps=((10, "orange"), (30, "red")),
        ),
        Panel(
            "Evidence rows",
            "Rows made visible per second, and records that were refused because they are no evidence.",
            "wps",
            (
                Query(_rate("", "waybill_evidence_rows_total"), "visible"),
                Query(_rate("", "waybill_evidence_rejected_total"), "refused"),
            ),
            span=8,
        ),
        Panel(
            "Evidence bytes",
            "Bytes of Parquet made visible per second.",
            "Bps",
            (Query(_rate("", "waybill_evidence_bytes_total"), "written"),),
            span=8,
        ),
        Panel(
            "Time to write a Parquet file",
            "Seconds from the first byte until the file is durable and visible.",
            "s",
            _quantiles("waybill_evidence_flush_seconds"),
            span=12,
        ),
        Panel(
            "Evidence lost, upkeep failed",
            "Offsets that were gone from the topic before they were read, and failures of compaction and retention; "
            "both should be none.",
            "none",
            (
                Query(_rise("site", "waybill_evidence_lost_offsets_total"), "{{site}} offsets lost"),
                Query(_rise("site", "waybill_evidence_upkeep_failures_total"), "{{site}} upkeep failures"),
            ),
            span=12,
        ),
    ),
)

_BACKLOG: Final = Row(
    "Backlog and stories",
    (
        Panel(
            "Lag by stage",
            "Records not yet read, by stage. Lag that only grows means that the stage is too slow or stands still.",
            "none",
            (
                Query(
                    f"sum by (stage) (max by (job, site, stage, topic, partition) ({_of('waybill_lag_records')}))",
                    "{{stage}}",
                ),
            ),
            steps=((1_000, "orange"), (10_000, "red")),
        ),
        Panel(
            "Open and overdue requests",
            "Requests that were admitted and have not ended, and those among them that should have.",
            "none",
            (
                Query(f"sum({_of('waybill_open_stories')})", "open"),
                Query(f"sum({_of('waybill_overdue_stories')})", "overdue"),
            ),
        ),
        Panel(
            "Stories closed",
            "Requests whose evidence is all there, per second, by whether its sequence is whole. `no` must never show.",
            "ops",
            (Query(_rate("complete", "waybill_stories_total"), "whole: {{complete}}"),),
        ),
    ),
)

_POLICY: Final = Row(
    "Policy and people",
    (
        Panel(
            "Approvals by result",
            "Requests for approval and what people answered, per second. `void` is an answer that does not count.",
            "ops",
            (Query(_rate("result", "waybill_approvals_total"), "{{result}}"),),
            span=6,
            stacked=True,
        ),
        Panel(
            "Waiting for a person",
            "Requests that wait for somebody's approval.",
            "none",
            (Query(f"sum({_of('waybill_approvals_waiting')})", "requests"),),
            span=6,
        ),
        Panel(
            "Consent register",
            "Entries that a worker knows, and whether it is up to date: 1, or 0 where every consent counts as unknown.",
            "none",
            (
                Query(f"max({_of('waybill_consent_entries')})", "entries"),
                Query(f"min({_of('waybill_consent_fresh')})", "up to date"),
            ),
            span=6,
        ),
        Panel(
            "What policy could not go by",
            "Activated policies that cannot be used, consent records that cannot be read, and requests whose names "
            "could not be looked for. Each of them closes the way: look at the worker's log.",
            "none",
            (
                Query(f"sum(increase({_of('waybill_policy_refused_total')}{_RATE}))", "policies refused"),
                Query(f"sum(increase({_of('waybill_consent_bad_records_total')}{_RATE}))", "bad consent records"),
                Query(f"sum(increase({_of('waybill_detector_failures_total')}{_RATE}))", "names not looked for"),
            ),
            span=6,
            steps=((1, "orange"),),
        ),
    ),
)

_TROUBLE: Final = Row(
    "Trouble",
    (
        Panel(
            "Dead letters by reason",
            "Records that went to the dead letters, by reason. The first record of a reason that a worker never saw "
            "before does not show here (Prometheus sees no rise); the alert DeadLettersRising counts it.",
            "none",
            (Query(_rise("reason", "waybill_dead_letters_total"), "{{reason}}"),),
            span=12,
            stacked=True,
        ),
        Panel(
            "Stage restarts",
            "Times that a stage began again after trouble that may pass (broker, model server, disk).",
            "none",
            (Query(_rise("stage", "waybill_stage_restarts_total"), "{{stage}}"),),
            span=12,
            stacked=True,
        ),
        Panel(
            "Records passed over",
            "Records on the ledger that are no entries, and events that correlation can make nothing of: somebody else "
            "writes to these topics.",
            "none",
            (
                Query(f"sum(increase({_of('waybill_ledger_skipped_total')}{_RATE}))", "ledger"),
                Query(f"sum(increase({_of('waybill_uncorrelated_events_total')}{_RATE}))", "evidence"),
            ),
            span=24,
        ),
    ),
)

_PROCESS: Final = Row(
    "Worker processes",
    (
        Panel(
            "CPU",
            "Processor seconds per second of each worker; 1 is one core, and a worker cannot use much more.",
            "none",
            (Query(f"rate({_of('process_cpu_seconds_total')}{_RATE})", "{{instance}}"),),
            steps=((0.9, "orange"),),
        ),
        Panel(
            "Memory",
            "Resident memory of each worker.",
            "bytes",
            (Query(_of("process_resident_memory_bytes"), "{{instance}}"),),
        ),
        Panel(
            "Open files",
            "Share of the open files and sockets that each worker may have.",
            "percentunit",
            (Query(f"{_of('process_open_fds')} / {_of('process_max_fds')}", "{{instance}}"),),
            steps=((0.7, "orange"), (0.9, "red")),
            top=1,
        ),
    ),
)

ROWS: Final = (_OVERVIEW, _TRAFFIC, _LATENCY, _MODELS, _EVIDENCE, _BACKLOG, _POLICY, _TROUBLE, _PROCESS)
"""The dashboard, from top to bottom."""
