"""One child process, started, watched and stopped: brokers, Triton, the stand-in provider and the worker all run so.

A `Child` is a plain `subprocess.Popen` that is polled, never an asyncio transport: it belongs to no event loop, so a
test session may start it in one loop and stop it in another.

What holds for every child:
- It leads its own session and process group. A terminal's Ctrl-C reaches only the supervisor, which then stops its
  children in the order it wants; whatever the child itself started goes when the child goes.
- On Linux it is killed when its parent dies, even by `kill -9` (PR_SET_PDEATHSIG). The kernel arms that for the
  *thread* that forked, so all children are forked by one thread that lives as long as the process.
- Standard output and error are appended to its log file; the last lines of it are in every error.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from evidence.errors import ConfigError, UnavailableError

_POLL_S = 0.05
_TAIL_LINES = 15
_TAIL_BYTES = 16_384

# Below the range from which Linux (32768), macOS and Windows (49152) take the ports of outgoing connections: a client
# that keeps knocking at a dead broker's port there could be given that very port and connect to itself.
_PORTS = range(20_000, 32_768)

# Runs between fork and the program: arms the death signal, checks that the parent is still there (it may have died
# before the signal was armed), and becomes the program. Not a `preexec_fn`, because Python code in a forked copy of a
# process with threads (DuckDB, Arrow, gRPC) can deadlock.
_LAUNCHER = """
import ctypes, json, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
parent, loader, *argv = sys.argv[1:]
if os.getppid() != int(parent):
    os._exit(1)
os.environ.update(json.loads(loader))
try:
    os.execv(argv[0], argv)
except OSError as error:
    print(f"cannot run {argv[0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)
"""


class ChildError(UnavailableError):
    """A child process ended, or did not get ready, when it was needed; the text ends with the last lines of its log.

    Attributes:
        name: the child's name.
        returncode: its exit status (negative: the signal that ended it), or None while it still runs.
        tail: the last lines that it wrote.
    """

    def __init__(self, name: str, message: str, *, returncode: int | None, log: Path, tail: str) -> None:
        said = f"the last lines of {log}:\n{tail}" if tail else f"it wrote nothing to {log}"
        super().__init__(f"{name} {message}; {said}")
        self.name = name
        self.returncode = returncode
        self.tail = tail


class Child:
    """One supervised process.

    Attributes:
        name: what errors call it, such as `broker`.
        log: the file that gets its standard output and error (appended).
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Describe the process; nothing runs before `start`.

        Args:
            name: what errors call it.
            argv: the program (a path, or a name on the PATH) and its arguments.
            log: where its output goes; the folder is made when it is missing.
            env: its whole environment; None passes on this process's own.
            cwd: its working directory; None is this process's own.
        """
        self.name = name
        self.log = log
        self._argv = [str(part) for part in argv]
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id, or None before `start`."""
        return None if self._popen is None else self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status (negative: the signal that ended it); None before the start and while it runs."""
        return None if self._popen is None else _poll(self._popen)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and _poll(self._popen) is None

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of what this run of the child wrote ("" where it wrote nothing)."""
        try:
            with self.log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, end - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.rstrip().splitlines()[-lines:])

    async def start(self) -> None:
        """Start it; returns as soon as it runs, which is not yet ready.

        Raises:
            ConfigError: the program does not exist or may not be run.
        """
        if self.running:
            raise ConfigError(f"{self.name} is already running as process {self.pid}; stop it before starting it again")
        program = shutil.which(self._argv[0], path=None if self._env is None else self._env.get("PATH"))
        if program is None:
            raise ConfigError(f"{self.name} cannot start: there is no program {self._argv[0]!r} to run")
        argv = [os.path.abspath(program), *self._argv[1:]]  # noqa: PTH100 - no disk is touched
        spawned = _spawner(os.getpid()).submit(self._spawn, argv)
        try:
            await asyncio.shield(asyncio.wrap_future(spawned))
        except asyncio.CancelledError:
            # The thread is at it and cannot be called off: it is a matter of milliseconds, and then the child must go.
            spawned.result()
            self.kill()
            raise

    def _spawn(self, argv: list[str]) -> None:
        env = self._env
        if sys.platform == "linux":
            # The launcher must not load the libraries that are meant for the program (Triton brings its own Python).
            loader = {} if env is None else {key: value for key, value in env.items() if key.startswith("LD_")}
            env = None if env is None else {key: value for key, value in env.items() if key not in loader}
            argv = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), json.dumps(loader), *argv]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(  # noqa: S603 - the program and its arguments are the supervisor's own
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self._cwd,
                start_new_session=True,
            )

    async def wait_ready(self, probe: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Wait until `probe` says yes; it is asked again and again, and an OSError from it means "not yet".

        Raises:
            ChildError: the child ended (noticed at once), or `timeout_s` seconds went by.
        """
        deadline = time.monotonic() + timeout_s
        asked: asyncio.Task[bool] | None = None
        try:
            while True:
                if asked is None:
                    asked = asyncio.ensure_future(_ask(probe))
                await asyncio.wait({asked}, timeout=_POLL_S)
                if not self.running:  # also after a yes: the answer then came from another process on that port
                    raise self.failure("ended before it was ready")
                if asked.done():
                    if asked.result():
                        return
                    asked = None
                    await asyncio.sleep(_POLL_S)
                if time.monotonic() > deadline:
                    raise self.failure(f"was not ready within {timeout_s:g} s")
        finally:
            if asked is not None and not asked.done():
                asked.cancel()
                await asyncio.wait({asked})

    def failure(self, message: str) -> ChildError:
        """An error about this child, with its exit status and the last lines of its log."""
        code = self.returncode
        status = "" if code is None else f" ({_describe(code)})"
        return ChildError(self.name, message + status, returncode=code, log=self.log, tail=self.tail())

    async def wait(self) -> int:
        """Wait until it ends, and return its exit status; a cancelled wait leaves it running."""
        while True:
            code = self.returncode
            if code is not None:
                return code
            if self._popen is None:
                raise ConfigError(f"{self.name} was never started, so there is no end to wait for")
            await asyncio.sleep(_POLL_S)

    async def stop(self, grace_s: float = 10) -> None:
        """Ask it to end (SIGTERM), and make it end (SIGKILL) after `grace_s` seconds; the whole process group goes.

        Idempotent. A cancelled stop kills at once: nothing is left running.
        """
        if self._popen is None or not self.running:
            return
        _signal_group(self._popen.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        try:
            while self.running and time.monotonic() < deadline:  # noqa: ASYNC110 - an event would belong to one loop
                await asyncio.sleep(_POLL_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and its process group now (SIGKILL); returns when it is gone. Idempotent."""
        if self._popen is not None and self.running:
            _signal_group(self._popen.pid, signal.SIGKILL)
            self._popen.wait()


def free_port() -> int:
    """A TCP port on loopback that nothing listens on at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """As many different TCP ports on loopback that nothing listens on at this moment."""
    found: list[int] = []
    for _ in range(1000):
        if len(found) == count:
            return found
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    raise UnavailableError(f"found no {count} free ports on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop - 1}")


async def _ask(probe: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await probe()
    except OSError:
        return False


def _poll(popen: subprocess.Popen[bytes]) -> int | None:
    """The exit status, with the rest of the process group ended first.

    An ended child that is not yet reaped still holds its group's number: the group can be signalled without meeting a
    stranger that was given the same number since.
    """
    if popen.returncode is None and hasattr(os, "waitid"):
        try:
            ended = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # another thread has just reaped it
            ended = None
        if ended is not None:
            _signal_group(popen.pid, signal.SIGKILL)
    return popen.poll()


def _signal_group(group: int, signum: signal.Signals) -> None:
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        pass  # it has ended in this very moment
    except PermissionError:
        pass  # macOS: nothing but an ended process is left in the group


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


@cache
def _spawner(_pid: int) -> ThreadPoolExecutor:
    """The thread that forks all children of this process (one for each pid: a forked copy has no threads)."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="children")
