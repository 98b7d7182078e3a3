"""The checks of `waybill doctor`: each gives one line on what is well, or raises what is not, with what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import aiohttp
from aiokafka import TopicPartition

from evidence.errors import ConfigError, PermanentError, RetryableError, UnavailableError, WaybillError
from evidence.files.local import LocalFiles
from evidence.files.seam import Files
from queries.database import Evidence
from streams.brokers.probe import node_count
from streams.kafka import check_topics, log_identity
from streams.registry import ASKEW_S, duration, roster_of
from streams.topics import EVIDENCE
from streams.workers import Facts, vault_differs
from waybill.cli.reading import tail
from waybill.endpoint_checks import check_endpoint
from waybill.parts import check_rulebook
from waybill.settings import Settings
from waybill.site import known_vault

Check = Callable[[Settings], Awaitable[str]]

_CHECK_S: Final = 30.0
_AHEAD_S: Final = 5.0
_FREE_BYTES: Final = 1024**3
_QUERY_S: Final = 20.0
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    """What was checked."""
    good: bool
    """Whether it is well."""
    said: str
    """What was found, and where it is not well what to do."""


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Run all checks, one after the other."""
    checks: list[tuple[str, Check]] = [
        ("configuration", configuration),
        ("broker", broker),
        ("topics", topics),
        ("clock", clock),
        ("worker", worker),
        ("site", site),
        *((f"endpoint {name}", partial(check_endpoint, name=name)) for name in settings.endpoints),
        ("evidence", evidence),
    ]
    for name, check in checks:
        yield await _run(name, check, settings)


async def _run(name: str, check: Check, settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(_CHECK_S):
            return Finding(name, good=True, said=await check(settings))
    except TimeoutError:
        return Finding(name, good=False, said=f"no answer within {_CHECK_S:g} s")
    except WaybillError as error:
        return Finding(name, good=False, said=str(error).removeprefix(f"{name}: "))


async def configuration(settings: Settings) -> str:
    """Routes, labels, policies, retention rules and decision records agree."""
    book = await asyncio.to_thread(check_rulebook, settings, datetime.now(UTC))
    rules = len(book.engine.policies.rules)
    return (
        f"{len(book.table.routes)} routes in {settings.routes} and {rules} policies in {settings.policy_folder()}, "
        f"rulebook {book.version}"
    )


async def broker(settings: Settings) -> str:
    """The broker answers."""
    nodes = await node_count(settings.kafka)
    identity = settings.log_id or await log_identity(settings.kafka_settings())
    return f"{nodes} node{'s' if nodes != 1 else ''} at {settings.kafka}, log {identity}"


async def topics(settings: Settings) -> str:
    """The topics are there, in the right shape."""
    counts = await check_topics(settings.kafka_settings())
    return f"all {len(counts)} are there, with {counts['ai.requests']} partitions for requests"


async def clock(settings: Settings) -> str:
    """Clocks agree, this machine's with the broker's, and no record is from the future: deadlines rest on it."""
    kafka = settings.kafka_settings()
    _, there = await roster_of(kafka)
    apart = (datetime.now(UTC) - there).total_seconds()
    if abs(apart) > ASKEW_S:
        way = "ahead of" if apart > 0 else "behind"
        raise PermanentError(f"this machine's clock is {duration(apart)} {way} the broker's: set it (NTP)")
    reader = await tail(kafka, (EVIDENCE,))
    newest = 0.0
    try:
        ends: dict[TopicPartition, int] = await reader.end_offsets(list(reader.assignment()))
        for partition, end in ends.items():
            # Two back: a transaction's own marker takes the last place.
            reader.seek(partition, max(0, end - 2))
        found = await reader.getmany(timeout_ms=1000)
        newest = max((record.timestamp / 1000 for records in found.values() for record in records), default=0.0)
    finally:
        await reader.stop()
    ahead = newest - datetime.now(UTC).timestamp()
    if ahead > _AHEAD_S:
        raise PermanentError(f"the newest evidence is {ahead:.0f} s in the future: set this machine's clock (NTP)")
    return f"{abs(apart):.1f} s from the broker's"


async def worker(settings: Settings) -> str:
    """A worker runs all its stages."""
    url = f"http://{settings.web_host}:{settings.web_port}/health"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(url) as answer,
        ):
            content = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise UnavailableError(f"no worker answers at {url}: start `waybill dev` or `waybill worker`") from error
    stages = content.get("stages", {}) if isinstance(content, dict) else {}
    if answer.status != _OK or not stages:
        told = ", ".join(f"{name} {state}" for name, state in stages.items())
        raise UnavailableError(f"a worker answers at {url} and is not ready: {told or answer.status}; look at its log")
    return f"runs {', '.join(stages)} at {url}"


async def site(settings: Settings) -> str:
    """The workers that run belong together, and this machine's vault is theirs."""
    roster, now = await roster_of(settings.kafka_settings())
    if roster.vault is None:
        return "no worker has registered yet"
    ours = await asyncio.to_thread(known_vault, settings)
    if ours is not None and (found := vault_differs(Facts(vault=ours), roster.vault)):
        raise ConfigError(found.sentence)
    alive = roster.alive(now)
    where = ", ".join(seen.worker.place for seen in alive)
    here = "" if ours else f"; there is no vault at {settings.vault_folder}, so that nothing of it can be opened here"
    return f"{len(alive)} worker{'s' if len(alive) != 1 else ''} registered{': ' if alive else ''}{where}{here}"


async def evidence(settings: Settings) -> str:
    """The store can be written to and asked."""
    files = settings.evidence_files()
    place = files.url("")
    if isinstance(files, LocalFiles):
        folder = files.root
        base = (
            folder if folder.exists() else settings.home if settings.home.exists() else settings.home.absolute().parent
        )
        if not os.access(base, os.W_OK):
            raise ConfigError(f"{base} cannot be written to: choose another --home, or change its permissions")
        free = shutil.disk_usage(base).free
        if free < _FREE_BYTES:
            raise RetryableError(f"only {free / 1e6:.0f} MB are free at {base}: make room")
        if not folder.exists():
            return f"none yet; {folder} will hold it"
    count, newest = await asyncio.to_thread(_extent, files)
    if newest is None:
        return f"no events yet in {place}"
    return f"{count:,} events in {place}, the newest of {newest:%Y-%m-%d %H:%M:%S} UTC"


def _extent(files: Files) -> tuple[int, datetime | None]:
    with (
        Evidence(files) as asked,
        asked.query("select count(*), max(occurred_at) from events", timeout_s=_QUERY_S) as rows,
    ):
        count, newest = next(rows)
        return count, newest
