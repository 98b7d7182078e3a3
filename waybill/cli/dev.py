"""`waybill dev`: the whole pipeline on one machine, and optionally requests through it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import uuid4

import typer

from evidence.errors import ConfigError
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, command, out

if TYPE_CHECKING:
    from waybill.cli.lines import Line
    from waybill.cli.progress import Display
    from waybill.cli.traffic import Traffic
    from waybill.dev import Supervisor

_STORY_EVERY_S: Final = 0.4
_STORY_S: Final = 30.0
_QUERY_S: Final = 10.0
_FAILED: Final = 1


def dev(
    requests: Annotated[
        Path | None,
        typer.Option("--requests", metavar="FILE.jsonl", help="Send these requests and show what comes of them."),
    ] = None,
    until_done: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--until-done", help="Stop when every request has ended and its evidence is complete.")
    ] = False,
    home: Home = None,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Use this broker and start none.")] = None,
    broker: Annotated[
        Literal["noida", "kafka"],
        typer.Option(help="Which broker to start: the development broker, or Apache Kafka (needs Java)."),
    ] = "noida",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=65_535, help="Port of the broker (default: 9092, or the next free one)."),
    ] = None,
    web_port: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=65_535, help="Port of health and metrics (default: 6066, or the next free one)."
        ),
    ] = None,
    local_model: Annotated[
        Literal["auto", "triton", "in-process"],
        typer.Option(help="How the local model runs; auto takes Triton where it can run."),
    ] = "auto",
) -> int:
    """Start the whole pipeline on this machine: broker, topics, local model, a stand-in for a hosted provider, worker.

    Everything is on 127.0.0.1 and ends together, by Ctrl-C too (a second Ctrl-C does not wait for what is in flight).
    On a broker that it did not start, its topics and groups begin with `dev-<user>-` unless `WAYBILL_KAFKA_PREFIX` is
    set, and it takes nobody's requests: where other workers run under that prefix it does not start.
    With a provider's key of your own, set `WAYBILL_ENDPOINTS__HOSTED__KIND=openai`, `__URL` and `__KEY_FILE`, and no
    stand-in is started. While it runs, `waybill send`, `receipt`, `trace` and `doctor` find it by themselves.

    Example: `waybill dev --requests config/requests.jsonl --until-done`
    """
    if until_done and requests is None:
        raise ConfigError("--until-done waits for requests: give --requests FILE.jsonl too")
    from waybill.settings import load  # noqa: PLC0415 - `--help` needs none of it

    settings = load(home=home, kafka=kafka, web_port=web_port)
    own = None if "kafka" in settings.model_fields_set else broker
    if own is None and port is not None:
        raise ConfigError("--port is for a broker that `waybill dev` starts; --kafka or WAYBILL_KAFKA names another")
    # Files are read before anything is started: what is wrong in them is told at once.
    from waybill.cli.lines import read  # noqa: PLC0415 - `--help` needs none of it
    from waybill.dev import Supervisor, Wanted  # noqa: PLC0415 - the same
    from waybill.dev_parts import check_texts  # noqa: PLC0415 - the same

    check_texts(settings)
    lines = read(requests, datetime.now(UTC), lambda: str(uuid4())) if requests is not None else ()
    supervisor = Supervisor(Wanted(settings, own, local_model, port), out.print)
    listen()
    return _run(supervisor, _whole(supervisor, lines, until_done=until_done))


def _run(supervisor: Supervisor, work: Coroutine[Any, Any, int]) -> int:
    """Run to the end; the first signal stops in order, the second at once."""
    received: list[int] = []

    async def guarded() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            received.append(number)
            if len(received) > 1:
                supervisor.kill()
                os._exit(128 + received[0])
            print("\nstopping (again: at once) …", file=sys.stderr, flush=True)  # noqa: T201 - where signals are told
            if task is not None:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)
        return await work

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]


async def _whole(supervisor: Supervisor, lines: tuple[Line, ...], *, until_done: bool) -> int:
    began = time.monotonic()
    async with supervisor:
        out.print(f"ready after {time.monotonic() - began:.1f} s")
        if not lines:
            _where(supervisor)
            await supervisor.wait()
            return _FAILED
        code = await supervisor.during(_requests(supervisor, lines, stays=not until_done))
        if not until_done:
            out.print("running; Ctrl-C stops")
            await supervisor.wait()
    out.print(f"stopped; all of it took {time.monotonic() - began:.1f} s")
    return code


async def _requests(supervisor: Supervisor, lines: tuple[Line, ...], *, stays: bool) -> int:
    from waybill.cli.progress import display  # noqa: PLC0415 - as above
    from waybill.cli.report import report  # noqa: PLC0415 - the same
    from waybill.cli.traffic import Traffic  # noqa: PLC0415 - the same

    async with Traffic(supervisor.settings.kafka_settings(), lines) as traffic:
        with display(out, len(lines), evidence=True) as shown:
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.send(shown.changed))
                group.create_task(traffic.follow(shown.changed))
            complete = await _stories(supervisor, traffic, lines, shown)
    await asyncio.to_thread(report, lines, traffic.progress, supervisor.settings)
    _where(supervisor, lines[0].request_id, stays=stays)
    if complete < len(lines):
        out.print(f"only {complete} of {len(lines)} stories are complete in evidence after {_STORY_S:g} s")
        return _FAILED
    return 0


async def _stories(supervisor: Supervisor, traffic: Traffic, lines: tuple[Line, ...], shown: Display) -> int:
    """Wait until evidence holds every story, as long as the sink may take; give how many it holds."""
    from queries.database import Evidence  # noqa: PLC0415 - as above
    from waybill.cli.stories import complete  # noqa: PLC0415 - the same

    evidence = Evidence(supervisor.settings.evidence_files())
    ids = [line.request_id for line in lines]
    unreadable = {place: key for place, key in traffic.positions.items() if key in traffic.progress.dead}
    end = time.monotonic() + _STORY_S + supervisor.settings.freshness_seconds
    while True:
        count = await asyncio.to_thread(complete, evidence, ids, unreadable, _QUERY_S)
        shown.stories(count)
        if count == len(lines) or time.monotonic() > end:
            return count
        await asyncio.sleep(_STORY_EVERY_S)


def _where(supervisor: Supervisor, request_id: str = "REQUEST_ID", *, stays: bool = True) -> None:
    """Say where everything lies and what to try next; `stays` says whether the run goes on."""
    run, settings = supervisor.run, supervisor.settings
    if run is None:
        return
    said = {"evidence": settings.evidence_files().url(""), "logs": str(settings.home / "logs")}
    if stays:
        said |= {"broker": run.kafka, "worker": f"http://127.0.0.1:{run.web_port}/health and /metrics"}
    said |= {"next": command(f"trace {request_id}", settings.home), "": command("ask", settings.home)}
    for name, value in said.items():
        out.print(f"{name:<9} {value}", soft_wrap=True)
