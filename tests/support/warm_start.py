"""Runs programs of the project without the second that their imports take each time.

A server process does the imports once and is forked for each run. What runs is a process of its own with the arguments,
environment, folder, output and exit code of a fresh one. Two things are not as in one: `ps` shows the server's command,
and modules are not taken down at the end, which takes as long as to import them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

IMPORTED = (
    "aiokafka",
    "aiokafka.admin",
    "cedarpy",
    "duckdb",
    "evidence.federation.chain",
    "evidence.verify",
    "evidence.verify.check",
    "inference.rulebook",
    "pyarrow.parquet",
    "queries.federated",
    "rich.table",
    "streams.app",
    "streams.kafka",
    "typer.rich_utils",
    "waybill.assembly",
    "waybill.cli.checkup",
    "waybill.cli.lines",
    "waybill.cli.program",
    "waybill.cli.stores",
    "waybill.cli.traffic",
    "waybill.contracts",
    "waybill.dev",
    "waybill.schemas",
)
"""What the server imports."""

READ_AT_RUN_TIME = ("COLUMNS", "LINES", "NO_COLOR", "PYTEST_CURRENT_TEST")
"""Variables, beside `WAYBILL_*`, that nothing reads as it is imported."""

_CHUNK = 65_536


def run_program(
    module: str, *arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` to its end; its standard input is empty.

    Where the environment differs from the tests' own in what an import may read, a fresh interpreter is started.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = dict(os.environ if env is None else env)
    if _read_by_imports(environment) != _read_by_imports(_server_environment()):
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    # Files, and no pipes: nobody has to read them meanwhile.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = _run(module, arguments, cwd, environment, (out.fileno(), err.fileno()), time.monotonic() + timeout)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    if code is None:
        raise subprocess.TimeoutExpired(command, timeout, *texts)
    return subprocess.CompletedProcess(command, code, *texts)


def _run(
    module: str, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], output: tuple[int, int], end: float
) -> int | None:
    """Return the exit code; None where it took too long."""
    asked = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": env}
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(_server())
        socket.send_fds(link, [b"x"], output)
        link.sendall(json.dumps(asked).encode())
        link.shutdown(socket.SHUT_WR)
        with link.makefile("rb") as answers:
            pid = int(answers.readline())
            link.settimeout(max(0.001, end - time.monotonic()))
            try:
                return int(answers.readline())
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                return None


def _read_by_imports(environment: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("WAYBILL_") and name not in READ_AT_RUN_TIME
    }


@cache
def _server_environment() -> dict[str, str]:
    return dict(os.environ)


@cache
def _server() -> str:
    """Start the server, once in this process; give its address. It ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="waybill-warm-")
    address = f"{folder.name}/link"
    environment = {name: value for name, value in _server_environment().items() if not name.startswith("WAYBILL_")}
    server = subprocess.Popen(
        [sys.executable, __file__, address], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def end() -> None:
        server.kill()
        server.wait()
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()
        folder.cleanup()

    atexit.register(end)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the server of warm starts does not start"
    return address


def _serve(address: str) -> dict[str, Any]:
    """Take requests for ever; return, in a process of its own, what one asks for."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(16)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:  # its end: the process that started this one has ended, however it did
            os._exit(0)
        link, _ = listening.accept()
        while _ended():
            pass
        if os.fork() == 0:  # a process that waits for the one that runs, so that runs do not wait for each other
            listening.close()
            return _forked(link)
        link.close()


def _ended() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def _forked(link: socket.socket) -> dict[str, Any]:
    _, output, _, _ = socket.recv_fds(link, 1, 2)
    told = b""
    while more := link.recv(_CHUNK):
        told += more
    child = os.fork()
    if child:
        link.sendall(b"%d\n" % child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(OSError):  # the one who asked may have stopped waiting
            link.sendall(b"%d\n" % code)
        os._exit(0)
    link.close()
    for number, place in enumerate([os.open(os.devnull, os.O_RDONLY), *output]):
        os.dup2(place, number)
        os.close(place)
    asked: dict[str, Any] = json.loads(told)
    return asked


def _become(asked: dict[str, Any]) -> None:
    """Go on as an interpreter does that was started with `-m`, up to its end."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]
    sys.argv[1:] = asked["arguments"]
    code = 0
    try:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = _exit_code(end.code)
    except BaseException as error:  # noqa: BLE001 - an interpreter ends with any of them, and prints it
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # what waits for threads at an interpreter's end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = 120  # as an interpreter does
    os._exit(code)


def _exit_code(told: object) -> int:
    if told is None or isinstance(told, int):
        return (told or 0) & 0xFF
    sys.stderr.write(f"{told}\n")
    return 1


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the collector of each run writes to all that is imported, and so copies it
    _become(_serve(sys.argv[1]))
