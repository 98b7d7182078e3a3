"""The Faust application that hosts the stages: lifecycle, supervision, timers, a table, and the views on the web port.

The stages themselves are not Faust agents: they are services of this application that run on aiokafka directly
(docs/decisions/0002-faust-hosts-aiokafka-works.md). What is low-rate and may be repeated is an agent: the dead letters
are counted by reason into a table, which survives restarts and is shown at `/deadletters`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import faust
import orjson
from aiokafka.errors import InvalidTimestampError, KafkaError
from faust.web import Request, Response, View
from mode import Service

from evidence.errors import PermanentError, RetryableError, WaybillError
from streams.conditions import RUNNING, Conditions
from streams.errors import kind_and_place
from streams.kafka import KafkaSettings
from streams.metrics import Metrics
from streams.topics import DEADLETTER

log = logging.getLogger(__name__)

APP: Final = "waybill"
TABLE: Final = "dead-letter-reasons"
CHANGELOG: Final = f"{APP}-{TABLE}-changelog"
"""Faust's own topic behind the table; it must exist with as many partitions as `ai.deadletter`."""

_CODE: Final = re.compile("[a-z0-9_]{1,64}")
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 15.0

Ready = Callable[[], None]
"""Called by a stage when it has its partitions and works."""

RunStage = Callable[[Ready], Awaitable[None]]
"""Runs a stage until it is cancelled."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What the host needs."""

    kafka: KafkaSettings
    """How to reach the broker."""

    partitions: int
    """Partitions of `ai.deadletter`."""

    folder: Path
    """Where Faust keeps its files."""

    web_host: str
    """Where the views are served."""

    web_port: int
    """On which port; 0 serves none."""

    stop_seconds: float = 60.0
    """How long a stage may take to end; then the process ends without it."""

    conditions: Conditions = field(default_factory=Conditions)
    """What is known of parts that no stage runs."""


class StageService(Service):
    """Runs a stage while the worker lives: trouble starts it again, what a person has to look at ends the worker."""

    abstract = False

    def __init__(
        self,
        name: str,
        run: RunStage,
        metrics: Metrics,
        *,
        stop_seconds: float = 60.0,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._name = name
        self._stop_seconds = stop_seconds
        self._failed = failed
        self._run_stage = run
        self._restarts = metrics.restarts.labels(name)
        self._running: asyncio.Task[None] | None = None
        self._ending = False
        self.condition = "starting"
        super().__init__()

    @property
    def label(self) -> str:
        """Name in logs."""
        return f"Stage: {self._name}"

    async def on_start(self) -> None:
        """Begin."""
        self._running = asyncio.create_task(self._supervise(), name=self._name)
        self._running.add_done_callback(self._ended)

    async def on_stop(self) -> None:
        """End in order: what is in flight is drained, what is buffered is written."""
        self._ending = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,), timeout=self._stop_seconds)
            if not self._running.done():
                log.error("stage %s does not end within %g s; it is left behind", self._name, self._stop_seconds)

    def _ready(self) -> None:
        self.condition = RUNNING

    async def _supervise(self) -> None:
        wait = _FIRST_WAIT_S
        while True:
            began = asyncio.get_running_loop().time()
            self.condition = "starting"
            try:
                await self._run_stage(self._ready)
            except PermanentError:
                raise  # a person has to look, and starting again changes nothing
            except Exception as error:  # noqa: BLE001 - a fault of one stage is no reason to end the others for good
                why = sentence(error)
                if self._ending:
                    # It took the place of the cancellation, of which there is only one: to start again is to stay.
                    log.warning("stage %s: %s as it ended", self._name, why)
                    return
                if asyncio.get_running_loop().time() - began > _LONGEST_WAIT_S:
                    wait = _FIRST_WAIT_S
                self.condition = f"waiting: {why}"
                log.warning("stage %s: %s; again in %.1f s", self._name, why, wait)
                self._restarts.inc()
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)
            else:
                if self._ending:
                    return  # it took the cancellation for an end in order: to start again is to stay
                await asyncio.sleep(wait)  # a stage that returns at once would leave no time for anything else

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        # Our own errors never quote input; what another library says may.
        told = str(error) if isinstance(error, WaybillError) else kind_and_place(error)
        self.condition = f"failed: {told}"
        log.error("stage %s failed: %s", self._name, told)
        self._failed(error)


def sentence(error: BaseException) -> str:
    """Return what an operator reads of an error: our own never quote input, the broker's and the disk's neither."""
    if isinstance(error, InvalidTimestampError):
        return "the broker refuses records from the future: this machine's clock is far ahead of its own; set it (NTP)"
    if isinstance(error, KafkaError | RetryableError | OSError):
        return str(error) or type(error).__name__
    return f"a fault of this program, {kind_and_place(error)}"


class Host(faust.App):
    """Faust's application, which stops the stages before anything of its own."""

    stages: tuple[StageService, ...] = ()
    """In the order in which they stop: admission first, and the sink when all is told."""

    stopping: bool = False
    """Whether the stages are being ended: from then on nothing new is served."""

    failure: BaseException | None = None
    """What ended the first stage that ended by itself: it cannot pass, so that the process ends."""

    end: Callable[[], None] = staticmethod(lambda: None)
    """Ends the process in order; set by the program."""

    def failed(self, error: BaseException) -> None:
        """End the process, because a stage has ended for good."""
        self.failure = self.failure or error
        self.end()

    def states(self) -> dict[str, str]:
        """Return the condition of each stage by its name, and that of the worker once it stops."""
        states = {stage.label.removeprefix("Stage: "): stage.condition for stage in self.stages}
        return states | {"worker": "stopping"} if self.stopping else states

    async def on_stop(self) -> None:
        """End the stages, however long Faust takes for its own parts, and also where these are still starting."""
        self.stopping = True
        for service in self.stages:
            await service.stop()
        await super().on_stop()

    def _on_rebalance_when_stopped(self) -> None:
        """Do nothing: Faust closes its consumer here from another thread than the consumer's, which breaks its end."""


def build(settings: HostSettings, stages: Mapping[str, RunStage], metrics: Metrics) -> Host:
    """Make the application; `faust.Worker(app)` runs it."""
    kafka = settings.kafka
    app = Host(
        kafka.prefix + APP,
        broker=[f"kafka://{server}" for server in kafka.bootstrap.split(",")],
        broker_credentials=_credentials(kafka),
        datadir=settings.folder,
        store="memory://",
        topic_partitions=settings.partitions,
        topic_allow_declare=False,  # the topics are made before the worker starts, and never by accident
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_bind=settings.web_host,
        web_host=settings.web_host,
        web_port=settings.web_port or 6066,
        web_enabled=settings.web_port != 0,
        web_in_thread=False,
        web_cors_options=None,
        stream_wait_empty=False,
        broker_session_timeout=kafka.session_timeout_ms / 1000,
        broker_heartbeat_interval=kafka.session_timeout_ms / 10_000,
    )
    services = [
        StageService(name, run, metrics, stop_seconds=settings.stop_seconds, failed=app.failed)
        for name, run in stages.items()
    ]
    app.stages = tuple(services)
    for service in reversed(services):
        app.add_dependency(service)
    table = _count_dead_letters(app, settings)
    _health(app, settings.conditions)
    _views(app, metrics, table)
    return app


def _count_dead_letters(app: faust.App, settings: HostSettings) -> Any:
    # Kept under `<partition>/<reason>`: a worker owns whole partitions of the table, as of the topic.
    table = app.Table(TABLE, default=int, partitions=settings.partitions)
    topic = app.topic(settings.kafka.name(DEADLETTER), value_type=bytes, value_serializer="raw")

    @app.agent(topic, concurrency=1, name="dead-letters")
    async def dead_letters(stream: Any) -> None:
        # An exception in an agent would acknowledge its event unseen, so none may leave this loop.
        async for event in stream.events():
            table[f"{event.message.partition}/{_reason(event.value)}"] += 1

    del dead_letters
    return table


def _reason(value: bytes | None) -> str:
    """Return the code of a dead letter, which anybody who may write there may have written."""
    try:
        reason = str(orjson.loads(value or b"")["failure"]["code"])
    except (ValueError, LookupError, TypeError):
        reason = ""
    return reason if _CODE.fullmatch(reason) else "unreadable"


def _health(app: Host, conditions: Conditions) -> None:
    """Serve whether requests are served now (`/health`, `/healthz`, `/readyz`), and whether the process lives."""

    async def ready(view: View, request: Request) -> Response:
        del request
        states = app.states() | conditions.states()
        good = all(state == RUNNING for state in states.values())
        return view.json({"ready": good, "stages": states}, status=200 if good else 503)

    async def alive(view: View, request: Request) -> Response:
        del request
        return view.json({"alive": True})

    for path in ("/health", "/healthz", "/readyz"):
        app.page(path)(ready)
    app.page("/livez")(alive)


def _views(app: faust.App, metrics: Metrics, table: Any) -> None:
    @app.page("/metrics")
    async def exposition(view: View, request: Request) -> Response:
        del request
        # Not as `content_type`: the charset in it is refused there.
        return view.bytes(metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    @app.page("/deadletters")
    async def dead(view: View, request: Request) -> Response:
        del request
        reasons: dict[str, int] = {}
        for key, count in table.items():
            reason = key.partition("/")[2]
            reasons[reason] = reasons.get(reason, 0) + count
        return view.json(reasons)

    del exposition, dead


def _credentials(kafka: KafkaSettings) -> Any:
    context = None
    if kafka.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=kafka.ca_file)
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=kafka.sasl_mechanism,
            username=kafka.sasl_username,
            password=kafka.sasl_password,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None
