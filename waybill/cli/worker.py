"""`waybill worker`: the stages, hosted by Faust."""

from __future__ import annotations

import asyncio
import logging.config
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from evidence.errors import ConfigError
from evidence.visible import VisibleFormatter
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka

_QUIET: Final = ("aiokafka", "faust", "mode", "kafka", "asyncio", "opentelemetry", "streams.app")
"""Libraries that tell of ordinary life at INFO, and the services that log as they do."""

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
    """Run the stages until SIGTERM or Ctrl-C; what is in flight ends first.

    Start as many workers as there are partitions: they share the work. All settings are `WAYBILL_*` variables
    (docs/settings.md); health is at `/health` and metrics at `/metrics` of the web port.

    Example: `waybill worker --kafka kafka:9092 --stages admission,dispatch`
    """
    from waybill.settings import load  # noqa: PLC0415 - `--help` needs none of it

    settings = load(home=home, kafka=kafka, routes=routes, web_port=web_port)
    _log_to_stderr()
    # Not before here: what the stages need takes a second to load, and `--help` needs none of it.
    from waybill import assembly  # noqa: PLC0415

    names = assembly.STAGES if stages is None else tuple(name.strip() for name in stages.split(","))
    if unknown := [name for name in names if name not in assembly.STAGES]:
        raise ConfigError(f"there is no stage {unknown[0]!r}; the stages are {', '.join(assembly.STAGES)}")
    settings.home.mkdir(parents=True, exist_ok=True)
    listen()
    plan = asyncio.run(assembly.plan(settings))
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    app = assembly.application(plan, names)
    log.info(
        "stages %s on %s, log %s, health at http://%s:%d/health",
        ", ".join(names), settings.kafka, plan.log_id, settings.web_host, settings.web_port,
    )  # fmt: skip
    _run(app, loop)


def _run(app: Any, loop: asyncio.AbstractEventLoop) -> None:
    import faust  # noqa: PLC0415 - as above

    class Worker(faust.Worker):
        """Faust's worker without its banner, its spinner and its second of sleep at the end."""

        def _schedule_shutdown(self, number: Any) -> None:
            log.info("stopping: what is in flight ends first")
            super()._schedule_shutdown(number)

        async def _sentinel_task(self) -> None:
            log.info("stopped")

    running = Worker(app, quiet=True, redirect_stdouts=False, loop=loop, override_logging=False)
    running.spinner = None
    running.execute_from_commandline()


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - it does not exist on Windows

    return uvloop.new_event_loop()


def _log_to_stderr() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": VisibleFormatter, "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {name: {"level": "WARNING"} for name in _QUIET},
        }
    )
