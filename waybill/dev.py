"""The supervisor behind `waybill dev`: broker, topics, local model, stand-in and worker, started and stopped together.

It holds no terminal: what a user should read goes to `say`, one line at a time. Parts that do not depend on each other
start together. A worker that dies is started again; a broker that dies ends the run, because what it acknowledged last
may be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from os import getpid
from sys import executable
from typing import Any, Final, Self

import aiohttp

from evidence.errors import ConfigError, UnavailableError
from streams.app import APP
from streams.brokers.members import evict_members
from streams.brokers.noida import DevelopmentBroker
from streams.brokers.process import Child, ChildError, free_port
from waybill.dev_company import STAGES, own_names, refuse_company
from waybill.dev_parts import ROOT, Broker, BrokerName, LocalModel, Part, broker, local_model, stand_in
from waybill.dev_ports import BROKER, WEB, choose
from waybill.dev_run import Claim, Place, Run
from waybill.dev_topics import make_topics
from waybill.endpoint_checks import check_endpoints
from waybill.settings import Settings, child_environment

PARTITIONS: Final = 2
"""Partitions of each topic on a broker of our own: enough to show that order holds within a request only."""

RETENTION_MS: Final = 60 * 60 * 1000
"""The development broker rewrites all it holds each second: it is given little to hold."""

FETCH_PAUSE_MS: Final = "20"
"""The development broker answers an empty fetch at once; without a pause an idle worker keeps a core busy."""

FRESHNESS_S: Final = "1"
"""Seconds until evidence can be queried, unless set: who tries things out waits, and small files do no harm here."""

_WORKER_S: Final = 60.0
_BACKOFF_S: Final = 0.5
_WINDOW_S: Final = 60.0
_DEATHS: Final = 5
_SECOND_GRACE_S: Final = 5.0
_USAGE: Final = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    settings: Settings
    """The settings of the environment, with the flags."""
    own_broker: BrokerName | None
    """Which broker to start; None uses the one of the settings."""
    local: LocalModel
    """How the local model runs."""
    port: int | None = None
    """Port of the broker; None takes the usual one, or the next that is free."""


class Supervisor:
    """One run; use `async with`, which stops everything in order."""

    def __init__(self, wanted: Wanted, say: Callable[[str], None]) -> None:
        self.settings = own_names(
            wanted.settings.model_copy(update={"home": wanted.settings.home.absolute()}), wanted.own_broker
        )
        self._wanted = wanted
        self._say = say
        self._home = self.settings.home
        self._claim = Claim(self._home)
        self._broker: Broker | None = None
        self._parts: dict[str, Part] = {}
        self._worker: Child | None = None
        self._kafka = self.settings.kafka_settings()
        self._tasks: list[asyncio.Task[Any]] = []
        self._children: list[Child] = []
        self._stopping = False
        self.worker_restarts = 0
        self.run: Run | None = None

    async def __aenter__(self) -> Self:
        """Start everything.

        Raises:
            ConfigError: something is not set or not there.
            UnavailableError: a part did not start.
        """
        self._claim.__enter__()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything in order."""
        await self.stop()

    async def wait(self) -> None:
        """Wait until something ends that cannot be mended; returns never otherwise.

        Raises:
            ChildError: a part ended for good.
        """
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def during(self, work: Coroutine[Any, Any, int]) -> int:
        """Run `work` while everything lives; what ends for good ends it too.

        Raises:
            ChildError: a part ended for good before `work` did.
        """
        working = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({working, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            if working not in done:
                for task in done:
                    task.result()
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the worker first, so that what is in flight can end, then the parts, then the broker. Idempotent."""
        self._stopping = True
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._worker is not None:
                await self._worker.stop(self.settings.drain_seconds + _SECOND_GRACE_S)
            await asyncio.gather(*(child.stop() for child in self._children))
            if self._broker is not None:
                await self._broker.stop()
        finally:
            self.kill()
            self._claim.__exit__()

    def kill(self) -> None:
        """End everything at once."""
        for child in (*([self._worker] if self._worker else []), *self._children):
            child.kill()
        if self._broker is not None:
            self._broker.kill()

    async def _start(self) -> None:
        environment = child_environment()
        endpoints = self.settings.endpoints
        given = self.settings.web_port if "web_port" in self.settings.model_fields_set else None
        web = (
            free_port()
            if given == 0
            else choose(given, WEB, what="health and metrics", how="--web-port or WAYBILL_WEB_PORT", say=self._say)
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_broker())
            if "local" not in endpoints:
                group.create_task(self._start_part("local", local_model(self._wanted.local, self._home, environment)))
            if "hosted" not in endpoints:
                script = self.settings.routes.parent / "standin.json"
                script_or_none = script.absolute() if script.is_file() else None
                group.create_task(self._start_part("hosted", stand_in(script_or_none, self._home, environment)))
        for name, title in (("local", "local model"), ("hosted", "hosted")):
            if name in self._parts:
                self._say(f"{title}: {self._parts[name].line}")
            else:
                config = endpoints[name]
                self._say(f"{title}: {config.described(name).provider} {config.url}, as it is set")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_endpoints())
            group.create_task(self._start_worker(web))
        self._publish(web)
        self._tasks.append(asyncio.create_task(self._keep_worker(web), name="worker"))
        self._tasks.extend(
            asyncio.create_task(self._keep(part), name=name) for name, part in self._parts.items() if part.child
        )
        if self._broker is not None:
            self._tasks.append(asyncio.create_task(self._keep_broker(self._broker), name="broker"))

    async def _start_part(self, name: str, starting: Awaitable[Part]) -> None:
        part = await starting
        self._parts[name] = part
        if part.child is not None:
            self._children.append(part.child)

    async def _start_broker(self) -> None:
        settings = self.settings
        if self._wanted.own_broker is None:
            prefix = settings.kafka_prefix
            names = f"its topics and groups of this run begin with `{prefix}`" if prefix else "names without a prefix"
            self._say(f"broker: using the Kafka at {settings.kafka}, which is not stopped at the end; {names}")
            await refuse_company(settings)
            await self._topics(settings.partitions, settings.replication, None)
            return
        usual = partial(choose, self._wanted.port, BROKER, what="the broker", how="--port", say=self._say)
        chosen = broker(self._wanted.own_broker, self._home, usual)
        self._say(f"broker: {chosen.kind}")
        self._broker = chosen
        address = await chosen.start()
        for note in chosen.notes:
            self._say(note)
        self.settings = settings.model_copy(update={"kafka": address, "log_id": settings.log_id or chosen.log_id})
        self._kafka = self.settings.kafka_settings()
        development = self._wanted.own_broker == "noida"
        await self._topics(PARTITIONS, 1, RETENTION_MS if development else None)
        # What a crashed run has left in the groups would hold their partitions for ever on the development broker.
        await self._evict()

    async def _topics(self, partitions: int, replication: int, retention_ms: int | None) -> None:
        await make_topics(self._kafka, partitions=partitions, replication=replication, retention_ms=retention_ms)

    async def _evict(self) -> int:
        if self._broker is None:
            return 0  # others may be working in these groups; the broker's session time-out decides
        groups = [*(self._kafka.group(stage) for stage in STAGES), self._kafka.prefix + APP]
        return await evict_members(self._kafka.bootstrap, groups)

    def _worker_environment(self, web: int) -> dict[str, str]:
        settings = self.settings
        changes = {
            "WAYBILL_HOME": str(self._home),
            "WAYBILL_ROUTES": str(settings.routes.absolute()),
            "WAYBILL_POLICY": str(settings.policy.absolute()),
            "WAYBILL_DECISIONS": str(settings.decisions.absolute()),
            "WAYBILL_KAFKA": settings.kafka,
            "WAYBILL_KAFKA_PREFIX": settings.kafka_prefix,
            "WAYBILL_WEB_PORT": str(web),
            "WAYBILL_WEB_HOST": "127.0.0.1",
        }
        if "freshness_seconds" not in settings.model_fields_set:
            changes["WAYBILL_FRESHNESS_SECONDS"] = FRESHNESS_S
        if isinstance(self._broker, DevelopmentBroker):
            changes["WAYBILL_FETCH_PAUSE_MS"] = FETCH_PAUSE_MS
        if settings.identity is None:
            # Nobody signs requests on a developer's machine; evidence says so.
            changes |= {"WAYBILL_IDENTITY__METHOD": "unsigned", "WAYBILL_IDENTITY__ALLOW_UNSIGNED": "true"}
        if settings.names_python is None and (names := ROOT / ".venv-names" / "bin" / "python").is_file():
            changes["WAYBILL_NAMES_PYTHON"] = str(names)
        if settings.log_id:
            changes["WAYBILL_LOG_ID"] = settings.log_id
        for name, part in self._parts.items():
            start = f"WAYBILL_ENDPOINTS__{name.upper()}__"
            changes |= {start + "KIND": part.place.kind, start + "PROVIDER": part.place.provider}
            if part.place.url:
                changes[start + "URL"] = part.place.url
        return child_environment(**changes)

    async def _ask_endpoints(self) -> None:
        """Say of each endpoint that was set whether it answers; those of this run have said so already."""
        async for name, good, said in check_endpoints(self.settings, self.settings.endpoints):
            self._say(f"{name}: {said}" if good else f"warning: {name}: {said}; requests to it will fail")

    async def _start_worker(self, web: int) -> None:
        worker = Child(
            "worker",
            [executable, "-m", "waybill", "worker"],
            log=self._home / "logs" / "worker.log",
            env=self._worker_environment(web),
        )
        self._worker = worker
        await worker.start()
        try:
            await worker.wait_ready(lambda: _healthy(web), _WORKER_S)
        except ChildError as error:
            if error.returncode == _USAGE:
                raise ConfigError(str(error)) from None
            raise

    async def _keep_worker(self, web: int) -> None:
        deaths: deque[float] = deque()
        wait = _BACKOFF_S
        while self._worker is not None:
            code = await self._worker.wait()
            if code == _USAGE:
                raise ConfigError(str(self._worker.failure("ended")))
            now = time.monotonic()
            while deaths and now - deaths[0] > _WINDOW_S:
                deaths.popleft()
            if not deaths:
                wait = _BACKOFF_S
            deaths.append(now)
            if len(deaths) > _DEATHS:
                raise self._worker.failure(f"ended {len(deaths)} times within {_WINDOW_S:g} s")
            self._say(f"the worker ended ({_how(code)}); it starts again in {wait:g} s (log: {self._worker.log})")
            await asyncio.sleep(wait)
            wait *= 2
            with suppress(UnavailableError):
                await self._evict()
            self.worker_restarts += 1
            try:
                await self._start_worker(web)
            except ChildError as error:
                self._say(str(error).splitlines()[0])
                self._worker.kill()
            else:
                self._say("the worker is ready again")

    async def _keep(self, part: Part) -> None:
        child = part.child
        if child is None:
            return
        deaths = 0
        while deaths < _DEATHS:
            code = await child.wait()
            deaths += 1
            self._say(f"{child.name} ended ({_how(code)}); it starts again (log: {child.log})")
            await asyncio.sleep(_BACKOFF_S * deaths)
            await child.start()
        raise child.failure(f"ended {deaths} times")

    async def _keep_broker(self, running: Broker) -> None:
        code = await running.wait()
        raise UnavailableError(
            f"the broker ended by itself ({_how(code)}), so that this run ends too; its log is in {self._home / 'logs'}"
        )

    def _publish(self, web: int) -> None:
        settings = self.settings
        places = {
            name: Place(kind=config.kind, url=config.url, provider=config.provider)
            for name, config in settings.endpoints.items()
        }
        self.run = Run(
            pid=getpid(),
            started_at=datetime.now(UTC),
            broker=self._broker.kind if self._broker else "your own",
            kafka=settings.kafka,
            kafka_prefix=settings.kafka_prefix,
            log_id=settings.log_id,
            web_port=web,
            endpoints=places | {name: part.place for name, part in self._parts.items()},
        )
        self._claim.publish(self.run)


async def _healthy(port: int) -> bool:
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://127.0.0.1:{port}/health") as answer,
        ):
            return answer.status == 200  # noqa: PLR2004 - HTTP's own word
    except (aiohttp.ClientError, TimeoutError):
        return False


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
