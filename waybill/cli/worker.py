"""`waybill worker`: the stages, hosted by Faust."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from evidence.errors import ConfigError, WaybillError
from waybill.cli.interrupts import STOPS, Ended, end_at_once, listen
from waybill.cli.options import Home, Kafka

if TYPE_CHECKING:
    from streams.app import Host
    from waybill.assembly import Plan

_FAILED: Final = 1

log = logging.getLogger(__name__)


def worker(
    kafka: Kafka = None,
    stages: Annotated[
        str | None, typer.Option(metavar="A,B", help="Stages to run, separated by commas (default: all).")
    ] = None,
    home: Home = None,
    routes: Annotated[Path | None, typer.Option(metavar="FILE", help="The route table.")] = None,
    web_port: Annotated[int | None, typer.Option(metavar="N", help="Port of health and metrics.")] = None,
) -> None:
    """Run the stages until SIGTERM, SIGHUP or Ctrl-C; what is in flight ends first, and the exit code is 0.

    Start as many workers as there are partitions: they share the work. All workers of a site need the same vault, the
    same evidence keys and the same evidence store; one that differs ends with a sentence that says in what. All
    settings are `WAYBILL_*` variables (docs/settings.md); health is at `/health` and metrics at `/metrics` of the web
    port.

    Example: `waybill worker --kafka kafka:9092 --stages admission,dispatch`
    """
    end_at_once()
    from waybill.settings import load  # noqa: PLC0415 - `--help` needs none of it

    settings = load(home=home, kafka=kafka, routes=routes, web_port=web_port)
    from waybill.log_lines import log_to_stderr  # noqa: PLC0415 - the same

    log_to_stderr()
    # Not before here: what the stages need takes a second to load, and `--help` needs none of it.
    from waybill import assembly, policy_edits  # noqa: PLC0415

    names = assembly.STAGES if stages is None else tuple(name.strip() for name in stages.split(","))
    if unknown := [name for name in names if name not in assembly.STAGES]:
        raise ConfigError(f"there is no stage {unknown[0]!r}; the stages are {', '.join(assembly.STAGES)}")
    _make_home(settings.home)
    _check_port(settings.web_host, settings.web_port)
    listen()
    if (said := policy_edits.edited(settings)) is not None:
        log.warning("%s", said)
    for number in STOPS:
        signal.signal(number, _end_soon)
    plan = asyncio.run(assembly.plan(settings, names))
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    app = assembly.application(plan)
    for line in _about(plan):
        log.info("%s", line)
    _run(app, loop)


def _about(plan: Plan) -> list[str]:
    """Return what is in force, one line each."""
    settings, book = plan.settings, plan.book
    lines = [f"site {settings.site}, vault {settings.vault_folder}, evidence {settings.evidence_files().url('')}"]
    lines.append(f"policy {book.policy_digest} from {settings.policy_folder()}, rulebook {book.version}")
    for name, config in settings.endpoints.items():
        lines.append(f"endpoint {name}: {config.described(name).provider} {config.url}".rstrip())
    prefix = f", prefix {settings.kafka_prefix}" if settings.kafka_prefix else ""
    lines.append(f"broker {settings.kafka}, log {plan.log_id}{prefix}, other workers: {plan.others}")
    web = f"http://{settings.web_host}:{settings.web_port}/health" if settings.web_port else "not served"
    return [*lines, f"worker {plan.worker.place}, stages {', '.join(plan.stages)}, health at {web}"]


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {home} cannot be made: {error.strerror}; choose another --home") from error


def _check_port(host: str, port: int) -> None:
    """See that health and metrics can be served.

    Raises:
        ConfigError: they cannot.
    """
    if port == 0:
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _port_error(error, host, port) from error


def _port_error(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} of {host}, for health and metrics, is in use by another program (perhaps another worker): "
            "set WAYBILL_WEB_PORT or --web-port to a free one, or to 0 for none"
        )
    return ConfigError(
        f"health and metrics cannot be served at {host}:{port}: {error.strerror}; set WAYBILL_WEB_HOST and "
        "WAYBILL_WEB_PORT"
    )


def _end_soon(_number: int, _frame: FrameType | None) -> None:
    raise Ended(0)


def _run(app: Host, loop: asyncio.AbstractEventLoop) -> None:
    """Run until a signal comes or a stage ends for good.

    Raises:
        WaybillError: a stage ended for good, or Faust did not start.
        Ended: the same, by an error that is not one of ours.
    """
    import faust  # noqa: PLC0415 - as above

    from streams.errors import kind_and_place  # noqa: PLC0415 - the same

    class Worker(faust.Worker):
        """Faust's worker without its banner, its spinner and its second of sleep at the end."""

        def _schedule_shutdown(self, number: Any) -> None:
            if not self._signal_stop_time:
                log.info("stopping: what is in flight ends first")
            super()._schedule_shutdown(number)

        def install_signal_handlers(self) -> None:
            super().install_signal_handlers()
            self.loop.add_signal_handler(signal.SIGHUP, self._schedule_shutdown, signal.SIGHUP)

        async def _sentinel_task(self) -> None:
            log.info("stopped")

    running = Worker(app, quiet=True, redirect_stdouts=False, loop=loop, override_logging=False)
    running.spinner = None
    app.end = lambda: running._schedule_shutdown(signal.SIGTERM)  # noqa: SLF001 - Faust has no other way to end in order
    running.install_signal_handlers()  # before it starts: a signal that comes first is heard by the loop
    with suppress(SystemExit):  # what Faust always ends with
        running.execute_from_commandline()
    failure = app.failure or running.crash_reason
    if isinstance(failure, OSError) and not isinstance(failure, WaybillError) and failure.errno == errno.EADDRINUSE:
        raise _port_error(failure, app.conf.web_host, app.conf.web_port)
    if isinstance(failure, WaybillError):
        raise failure
    if failure is not None:
        # Not its text, which may quote input; of a stage this is the second line about it.
        log.error("the worker ended: %s", kind_and_place(failure))
        raise Ended(_FAILED)


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - it does not exist on Windows

    return uvloop.new_event_loop()
