"""Every metric of the pipeline, in one place; `docs/metrics.md` lists them and a test compares."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_LATENCY: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
"""Bucket bounds in seconds: from one broker round trip to a slow local generation."""


class Metrics:
    """The process's metrics on a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # processor time, memory and open files of this worker (Linux)
        self.admitted = Counter(
            "waybill_admissions", "Requests that admission decided on, by result.", ["result"], registry=registry
        )
        self.ended = Counter(
            "waybill_requests",
            "Requests that ended, by outcome and placement.",
            ["outcome", "placement"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "waybill_dead_letters", "Records sent to the dead letters, by reason.", ["reason"], registry=registry
        )
        self.attempts = Counter(
            "waybill_attempts",
            "Calls to models, by route, provider and result.",
            ["route", "provider", "result"],
            registry=registry,
        )
        self.tokens = Counter(
            "waybill_tokens", "Tokens, by route and direction.", ["route", "direction"], registry=registry
        )
        self.cost = Counter(
            "waybill_cost_usd", "Price of answers in US dollars, by route.", ["route"], registry=registry
        )
        self.in_flight = Gauge(
            "waybill_in_flight", "Requests being served now, by placement.", ["placement"], registry=registry
        )
        self.stage_seconds = Histogram(
            "waybill_stage_seconds",
            "Time that a request spends in a stage, in seconds.",
            ["stage"],
            buckets=_LATENCY,
            registry=registry,
        )
        self.transaction_seconds = Histogram(
            "waybill_transaction_seconds",
            "Time to commit one transaction, in seconds.",
            ["stage"],
            buckets=_LATENCY,
            registry=registry,
        )
        self.lag = Gauge(
            "waybill_lag_records",
            "Records not yet read, by stage and partition.",
            ["stage", "topic", "partition"],
            registry=registry,
        )
        self.evidence_rows = Counter("waybill_evidence_rows", "Evidence rows made visible.", registry=registry)
        self.evidence_rejected = Counter("waybill_evidence_rejected", "Evidence records refused.", registry=registry)
        self.evidence_bytes = Counter("waybill_evidence_bytes", "Bytes of Parquet made visible.", registry=registry)
        self.flush_seconds = Histogram(
            "waybill_evidence_flush_seconds",
            "Time to write one Parquet file, in seconds.",
            buckets=_LATENCY,
            registry=registry,
        )
        self.freshness = Gauge(
            "waybill_evidence_freshness_seconds",
            "Age that the oldest event of the last flush had when it became visible, in seconds.",
            registry=registry,
        )
        self.waiting = Gauge(
            "waybill_evidence_waiting_seconds",
            "Age of the oldest event that was read and is not visible yet, in seconds; 0 where none waits.",
            registry=registry,
        )
        self.evidence_lost = Counter(
            "waybill_evidence_lost_offsets",
            "Offsets of the evidence topic that were gone before they were read; the log names them.",
            registry=registry,
        )
        self.upkeep_failures = Counter(
            "waybill_evidence_upkeep_failures", "Times that the upkeep of a log failed.", registry=registry
        )
        self.open_stories = Gauge("waybill_open_stories", "Requests admitted and not ended.", registry=registry)
        self.overdue_stories = Gauge(
            "waybill_overdue_stories", "Requests that should have ended and have not.", registry=registry
        )
        self.stories = Counter(
            "waybill_stories",
            "Stories that closed, by whether their sequence is whole.",
            ["complete"],
            registry=registry,
        )
        self.uncorrelated = Counter(
            "waybill_uncorrelated_events",
            "Records of the evidence topic that correlation could make nothing of.",
            registry=registry,
        )
        self.ledger_skipped = Counter(
            "waybill_ledger_skipped",
            "Records of the ledger that could not be read, and were skipped.",
            registry=registry,
        )
        self.detector_failures = Counter(
            "waybill_detector_failures",
            "Requests whose names could not be looked for, so that they count as the highest class.",
            registry=registry,
        )
        self.policy_refused = Counter(
            "waybill_policy_refused",
            "Versions of policy that were activated and cannot be used, so that the one before stays in force.",
            registry=registry,
        )
        self.restarts = Counter(
            "waybill_stage_restarts", "Times that a stage started again after trouble.", ["stage"], registry=registry
        )

    def exposition(self) -> bytes:
        """Give all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
