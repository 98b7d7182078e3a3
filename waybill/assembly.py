"""Assembly: from settings to running parts. The one module that sees all packages."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError
from evidence.store.site import EvidenceStore
from evidence.store.upkeep import Upkeep
from inference.backend import Backend
from inference.inprocess import InProcessBackend
from inference.rulebook import Rulebook
from inference.triton import TritonBackend
from policy.detection.names import Limits as NamesLimits
from policy.detection.names import NamesDetector
from policy.holds import HoldBook
from policy.identity.verify import Verifier
from policy.vault.store import VaultStore
from streams import app as host
from streams.approvals import unsigned
from streams.brokers.patience import wait_after_empty_fetches
from streams.kafka import check_topics, log_identity
from streams.keys import KeyFeed
from streams.registry import ASKEW_S, Registry, duration
from streams.signed import signed_by
from streams.stages import admission, approvals, dispatch
from streams.stages.account import Kitchen
from streams.stages.admit import Rules
from streams.stages.correlation import Correlation
from streams.stages.dispatch import Limits
from streams.stages.sink import Sink
from streams.telemetry import Exporter
from streams.workers import Facts, Worker
from waybill import site
from waybill.expiring import Expiring, Telling
from waybill.observers import SinkMetrics, SinkRejects
from waybill.parts import PolicyWatch, Shared, StoreKeeper, check_rulebook, key_ring, masked, note_vault, share
from waybill.settings import Settings

log = logging.getLogger(__name__)

_END_S: Final = 30.0
"""Seconds that a stage may take to write down what it has, after what was in flight has ended."""

STAGES: Final = ("admission", "approvals", "dispatch", "correlation", "sink")
"""Every stage, in the order of a request's way."""


def utc_now() -> datetime:
    """Give the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """What was checked before anything is started."""

    settings: Settings
    """The settings."""
    book: Rulebook
    """Everything that decides."""
    identity: tuple[Verifier, KeyFeed] | None
    """Checks who asks; None believes what requests say."""
    log_id: str
    """Which log the offsets belong to."""
    partitions: Mapping[str, int]
    """Partitions by topic."""
    stages: tuple[str, ...]
    """The stages that run."""
    registry: Registry
    """This worker's place among the others."""
    worker: Worker
    """What it is registered as."""
    others: int
    """Other workers that run."""


async def plan(settings: Settings, stages: tuple[str, ...]) -> Plan:
    """Check everything that can be checked before data is touched, and register.

    Raises:
        ConfigError: the configuration is wrong.
        BrokerUnavailable: no broker answers.
        TopicMismatch: the topics are not as they must be.
        UnavailableError: the issuer's keys cannot be read.
    """
    book = check_rulebook(settings, utc_now())
    if settings.identity is None:
        raise ConfigError(
            "WAYBILL_IDENTITY__ISSUER and WAYBILL_IDENTITY__JWKS are not set: a worker has to know who signs the "
            "tokens of requests (docs/identity.md)"
        )
    if "admission" in stages:
        _names_python(settings, book)
    if "dispatch" in stages:
        await check_endpoints(settings)
    identity = await settings.identity.open()
    kafka = settings.kafka_settings()
    partitions = await check_topics(kafka)
    log_id = settings.log_id or await log_identity(kafka)
    me = site.this_worker(settings, log_id, stages, utc_now())
    registry = Registry(kafka, me, present=partial(site.marks, settings), clock=utc_now)
    site.make_mark(settings, me.worker)
    try:
        registered = await registry.register()
    except BaseException:
        site.remove_mark(settings, me.worker)
        raise
    if abs(registered.ahead_s) > ASKEW_S:
        way = "ahead of" if registered.ahead_s > 0 else "behind"
        log.warning("this machine's clock is %s %s the broker's: set it (NTP)", duration(registered.ahead_s), way)
    return Plan(settings, book, identity, log_id, partitions, stages, registry, me, len(registered.others))


async def check_endpoints(settings: Settings) -> None:
    """Make and give back what reaches each endpoint: what is wrong with its settings is told before anything starts.

    Raises:
        ConfigError: an endpoint cannot be used as it is set.
    """
    for name, config in settings.endpoints.items():
        await _backend(name, settings).close()
        if config.kind == "openai":
            await config.credentials(name).close()


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
    return config.backend(name, connections=settings.max_hosted)


def application(checked: Plan) -> host.Host:
    """Make the Faust application that runs the stages.

    Raises:
        ConfigError: the vault cannot be used.
    """
    shared = share(checked.settings, checked.book, checked.identity, utc_now)
    makers: dict[str, Callable[[Plan, Shared], host.RunStage]] = {
        "admission": _admission,
        "approvals": _approvals,
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
        stop_seconds=settings.drain_seconds + _END_S,
        conditions=shared.conditions,
    )
    stages = {name: makers[name](checked, shared) for name in checked.stages}
    if {"admission", "dispatch"} & set(checked.stages):
        stages = {**stages, "control": _control(shared)}
    stages = {**stages, "registration": _registration(checked, shared)}
    built = host.build(hosting, stages, shared.metrics)
    wait_after_empty_fetches(settings.fetch_pause_ms / 1000)
    _calm_collector()
    return built


def _control(shared: Shared) -> host.RunStage:
    """Follow what may change while the worker runs: consents, policies, and the issuer's keys."""

    async def run(ready: host.Ready) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(shared.consents.run(ready))
            group.create_task(PolicyWatch(shared, utc_now).run())
            if shared.identity is not None:
                verifier, feed = shared.identity
                group.create_task(feed.follow(verifier))

    async def alone(ready: host.Ready) -> None:
        # One of them alone ends the stage, and is what its host has to know.
        try:
            await run(ready)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    return alone


def _registration(checked: Plan, shared: Shared) -> host.RunStage:
    """Show the other workers that this one lives, and `/health` whether the broker takes what it writes."""
    settings, worker = checked.settings, checked.worker

    def facts() -> Facts:
        note_vault(shared.conditions, site.keep_mark(settings, worker.worker))
        return site.renewed(settings, worker.facts)

    async def run(ready: host.Ready) -> None:
        asking = asyncio.create_task(_warn(settings)) if "dispatch" in checked.stages else None
        try:
            await checked.registry.keep(facts, shared.conditions, ready)
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            site.remove_mark(settings, worker.worker)

    return run


async def _warn(settings: Settings) -> None:
    """Ask every endpoint once, beside the stages: what is wrong is in the log before a request finds out."""
    from waybill.endpoint_checks import check_endpoints as ask  # noqa: PLC0415 - it imports this module

    async for name, good, said in ask(settings, settings.endpoints):
        log.log(logging.INFO if good else logging.WARNING, "endpoint %s: %s", name, said)


def _admission(checked: Plan, shared: Shared) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    rules = Rules(
        shelf=shared.shelf,
        scanner=shared.scanner,
        vault=shared.vault,
        consents=shared.consents,
        verifier=shared.verifier,
        site=settings.site,
        log_id=checked.log_id,
        max_bytes=settings.max_request_bytes,
        name=kafka.name,
        erased=shared.erased,
    )

    async def run(ready: host.Ready) -> None:
        names = await _names(shared)
        await shared.consents.caught_up()  # before that, nobody is known to have consented to anything
        try:
            await admission.stage(kafka, rules, shared.metrics, utc_now, names).run(ready)
        finally:
            if names is not None:
                await names.close()

    return run


def _names_python(settings: Settings, book: Rulebook) -> Path | None:
    """Return the Python that finds names; None where the labels ask for none.

    Raises:
        ConfigError: they do, and it is not set.
    """
    if not book.labels.config.names.purposes:
        return None
    if settings.names_python is None:
        raise ConfigError(
            "the labels ask for names of people and places, and WAYBILL_NAMES_PYTHON does not say where the "
            "environment is that finds them: make it with `make names`"
        )
    return settings.names_python


async def _names(shared: Shared) -> NamesDetector | None:
    """Start what finds names, where the labels ask for them."""
    python = _names_python(shared.settings, shared.shelf.current)
    if python is None:
        return None
    timeout_s = shared.shelf.current.labels.config.names.timeout_s
    detector = NamesDetector(python, limits=NamesLimits(timeout_s=timeout_s))
    await detector.start()
    return detector


def _approvals(checked: Plan, shared: Shared) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    desk = approvals.Desk(
        site=settings.site,
        log_id=checked.log_id,
        clock=utc_now,
        metrics=shared.metrics,
        counts=approvals.ApprovalMetrics(shared.metrics.registry),
        mask=lambda text: masked(shared.scanner, text),
        authenticate=unsigned if shared.verifier is None else signed_by(shared.verifier, utc_now),
        erased=shared.erased,
    )
    return lambda ready: approvals.stage(kafka, desk).run(ready)


def _dispatch(checked: Plan, shared: Shared) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    limits = Limits(local=settings.max_local, hosted=settings.max_hosted, drain_s=settings.drain_seconds)

    async def run(ready: host.Ready) -> None:
        made = backends(settings)
        credentials = {
            name: config.credentials(name) for name, config in settings.endpoints.items() if config.kind == "openai"
        }
        store = VaultStore(settings.vault_folder)
        kitchen = Kitchen(
            shelf=shared.shelf,
            backends=made,
            credentials=credentials,
            vault=shared.vault,
            keeper=StoreKeeper(store, shared.conditions),
            consents=shared.consents,
            scanner=shared.scanner,
            site=settings.site,
            name=kafka.name,
            clock=utc_now,
            metrics=shared.metrics,
            erased=shared.erased,
        )
        await shared.consents.caught_up()
        try:
            await dispatch.stage(kafka, kitchen, limits, checked.log_id).run(ready)
        finally:
            for backend in made.values():
                await backend.close()
            for credential in credentials.values():
                await credential.close()
            store.close()

    return run


def _sink(checked: Plan, shared: Shared) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()
    store = EvidenceStore(settings.evidence_files(), settings.site, key_ring(settings))
    expire = Expiring(
        store.files,
        lambda: shared.shelf.current.retention,
        HoldBook(settings.vault_folder / "holds"),
        tell=Telling(kafka, settings.site),
    )
    upkeep = Upkeep(store.files, grace_s=settings.grace_seconds, max_rows=settings.compact_rows, expire=expire)

    async def run(ready: host.Ready) -> None:
        sink = Sink(
            kafka=kafka,
            store=store,
            log_id=checked.log_id,
            freshness_s=settings.freshness_seconds,
            idle_s=settings.idle_seconds,
            max_rows=settings.sink_rows,
            upkeep=upkeep,
            upkeep_s=settings.compact_seconds,
            group=kafka.group("sink"),
            dead_letter=SinkRejects(kafka, shared.metrics, utc_now, log_id=checked.log_id, site=settings.site),
            observe=SinkMetrics(kafka, shared.metrics),
        )
        await sink.run(ready)

    return run


def _correlation(checked: Plan, shared: Shared) -> host.RunStage:
    settings, kafka = checked.settings, checked.settings.kafka_settings()

    async def run(ready: host.Ready) -> None:
        endpoint = settings.otlp_endpoint
        exporter = Exporter.over_http(endpoint, site=settings.site) if endpoint else None
        try:
            await Correlation(kafka, shared.metrics, utc_now, exporter).run(ready)
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
