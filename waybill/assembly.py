"""Assembly: from settings to running parts. The one module that sees all packages."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import faust

from evidence.errors import ConfigError
from evidence.records import Placement
from evidence.store import EvidenceStore
from inference.backend import Backend
from inference.inprocess import InProcessBackend
from inference.openai import OpenAICompatibleBackend
from inference.routes import RouteTable
from inference.routes import load as load_routes
from inference.triton import TritonBackend
from policy.detectors import Detectors
from streams import app as host
from streams.brokers.patience import wait_after_empty_fetches
from streams.kafka import check_topics, log_identity
from streams.metrics import Metrics
from streams.processors.routing import Endpoint
from streams.stages import admission, dispatch
from streams.stages.account import Kitchen
from streams.stages.admit import Rules
from streams.stages.correlation import Correlation
from streams.stages.dispatch import Limits
from streams.stages.sink import Sink
from streams.telemetry import Exporter
from waybill.observers import SinkMetrics, SinkRejects
from waybill.settings import Settings

STAGES: Final = ("admission", "dispatch", "correlation", "sink")
"""Every stage, in the order of a request's way."""


def utc_now() -> datetime:
    """Give the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """What was checked before anything is started."""

    settings: Settings
    """The settings."""
    table: RouteTable
    """The route table."""
    endpoints: Mapping[str, Endpoint]
    """Where routes lead."""
    log_id: str
    """Which log the offsets belong to."""
    partitions: Mapping[str, int]
    """Partitions by topic."""


def check_routes(settings: Settings) -> tuple[RouteTable, dict[str, Endpoint]]:
    """Read the route table and match it with the endpoints.

    Raises:
        ConfigError: a file is wrong, or a route leads to an endpoint that is not set or is of the wrong kind.
    """
    table = load_routes(settings.routes)
    endpoints = {name: config.described(name) for name, config in settings.endpoints.items()}
    for route in table.routes:
        config = settings.endpoints.get(route.endpoint)
        if config is None:
            raise ConfigError(
                f"route {route.name} leads to endpoint {route.endpoint}, which is not set: "
                f"set WAYBILL_ENDPOINTS__{route.endpoint.upper()}__KIND and what that kind needs"
            )
        if (config.kind == "openai") is (route.placement is Placement.LOCAL):
            raise ConfigError(
                f"route {route.name} is {route.placement}, but its endpoint {route.endpoint} is of kind {config.kind}"
            )
    return table, endpoints


async def plan(settings: Settings) -> Plan:
    """Check everything that can be checked before data is touched.

    Raises:
        ConfigError: the configuration is wrong.
        BrokerUnavailable: no broker answers.
        TopicMismatch: the topics are not as they must be.
    """
    table, endpoints = check_routes(settings)
    kafka = settings.kafka_settings()
    partitions = await check_topics(kafka)
    return Plan(settings, table, endpoints, settings.log_id or await log_identity(kafka), partitions)


def backends(settings: Settings) -> dict[str, Backend]:
    """Make a backend for each endpoint.

    Raises:
        ConfigError: an endpoint cannot be used as it is set.
    """
    return {name: _backend(name, settings) for name in settings.endpoints}


def _backend(name: str, settings: Settings) -> Backend:
    config = settings.endpoints[name]
    if config.kind == "triton":
        return TritonBackend(config.url)
    if config.kind == "in-process":
        return InProcessBackend()
    return OpenAICompatibleBackend(
        base_url=config.url,
        api_key=config.secret(),
        provider=config.provider or config.kind,
        connections=settings.max_hosted,
        allow_plaintext=config.allow_plaintext,
    )


def application(checked: Plan, names: Iterable[str] = STAGES) -> faust.App:
    """Make the Faust application that runs the named stages.

    Raises:
        ConfigError: a name is no stage, or an endpoint cannot be used.
    """
    wanted = tuple(names)
    for name in wanted:
        if name not in STAGES:
            raise ConfigError(f"there is no stage {name!r}; the stages are {', '.join(STAGES)}")
    metrics = Metrics()
    makers: dict[str, Callable[[Plan, Metrics], host.RunStage]] = {
        "admission": _admission,
        "dispatch": _dispatch,
        "sink": _sink,
        "correlation": _correlation,
    }
    settings = checked.settings
    hosting = host.HostSettings(
        kafka=settings.kafka_settings(),
        partitions=checked.partitions["ai.deadletter"],
        folder=settings.home / "faust",
        web_host=settings.web_host,
        web_port=settings.web_port,
    )
    built = host.build(hosting, {name: makers[name](checked, metrics) for name in wanted}, metrics)
    wait_after_empty_fetches(settings.fetch_pause_ms / 1000)
    _calm_collector()
    return built


def _admission(checked: Plan, metrics: Metrics) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    rules = Rules(
        table=checked.table,
        endpoints=checked.endpoints,
        scanner=Detectors(),
        site=settings.site,
        log_id=checked.log_id,
        max_bytes=settings.max_request_bytes,
        name=kafka.name,
    )
    return lambda ready: admission.stage(kafka, rules, metrics, utc_now).run(ready)


def _dispatch(checked: Plan, metrics: Metrics) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    limits = Limits(local=settings.max_local, hosted=settings.max_hosted, drain_s=settings.drain_seconds)

    async def run(ready: host.Ready) -> None:
        made = backends(settings)
        kitchen = Kitchen(
            table=checked.table,
            endpoints=checked.endpoints,
            backends=made,
            scanner=Detectors(),
            site=settings.site,
            name=kafka.name,
            clock=utc_now,
            metrics=metrics,
        )
        try:
            await dispatch.stage(kafka, kitchen, limits, checked.log_id).run(ready)
        finally:
            for backend in made.values():
                await backend.close()

    return run


def _sink(checked: Plan, metrics: Metrics) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    store = EvidenceStore(settings.evidence, settings.site)

    async def run(ready: host.Ready) -> None:
        sink = Sink(
            kafka=kafka,
            store=store,
            log_id=checked.log_id,
            freshness_s=settings.freshness_seconds,
            max_rows=settings.sink_rows,
            group=kafka.group("sink"),
            dead_letter=SinkRejects(kafka, metrics, utc_now, log_id=checked.log_id, site=settings.site),
            observe=SinkMetrics(kafka, metrics),
        )
        await sink.run(ready)

    return run


def _correlation(checked: Plan, metrics: Metrics) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()

    async def run(ready: host.Ready) -> None:
        endpoint = settings.otlp_endpoint
        exporter = Exporter.over_http(endpoint, site=settings.site) if endpoint else None
        try:
            await Correlation(kafka, metrics, utc_now, exporter).run(ready)
        finally:
            if exporter is not None:
                await asyncio.to_thread(exporter.close)

    return run


def _calm_collector() -> None:
    # Records live for milliseconds and hold no cycles: what exists now is never garbage, and the young generation may
    # grow. Measured on parsing alone, this is worth a factor of 2.5 to 4.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1000)


def describe(error: BaseException) -> str:
    """Give an error's text, or its kind where it has none."""
    return str(error) or type(error).__name__


__all__: Final[list[Any]] = ["STAGES", "Plan", "application", "backends", "check_routes", "describe", "plan", "utc_now"]
