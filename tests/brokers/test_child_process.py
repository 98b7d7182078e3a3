"""A child process is started, watched and always ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from evidence.errors import ConfigError
from streams.brokers.process import Child, ChildError, free_ports

_PARENT = """
import asyncio, pathlib, sys
from streams.brokers.process import Child

async def main():
    child = Child("sleeper", ["sleep", "600"], log=pathlib.Path(sys.argv[1]))
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def _ready() -> bool:
    return True


async def _never() -> bool:
    return False


def _gone(pid: int, within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def _python(tmp_path: Path, code: str, **more) -> Child:
    return Child("program", [sys.executable, "-c", code], log=tmp_path / "logs" / "program.log", **more)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's own")
def test_a_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    """`kill -9` of the supervisor leaves no child behind."""
    argv = [sys.executable, "-c", _PARENT, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # The launcher has armed the signal once it has become the program.
        while psutil.Process(pid).name() != "sleep":
            time.sleep(0.01)
        parent.kill()
    assert _gone(pid)


def test_a_child_outlives_the_thread_and_the_loop_that_started_it(tmp_path: Path) -> None:
    """A child started in a thread that has ended runs on, and another loop stops it."""
    child = _python(tmp_path, "import time; time.sleep(600)")
    thread = threading.Thread(target=lambda: asyncio.run(child.start()))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert child.running
    asyncio.run(child.stop())
    assert child.returncode == -signal.SIGTERM


async def test_a_child_that_fails_shows_the_end_of_its_log_at_once(tmp_path: Path) -> None:
    """A child that ends before it is ready fails the wait at once, with its own last lines, not an older run's."""
    log = tmp_path / "logs" / "program.log"
    log.parent.mkdir()
    log.write_text("an older run\n")
    child = _python(tmp_path, "print('first line'); print('the port is taken'); raise SystemExit(3)")
    await child.start()
    began = time.monotonic()
    with pytest.raises(ChildError, match="ended before it was ready") as caught:
        await child.wait_ready(_never, timeout_s=60)
    assert time.monotonic() - began < 10
    assert "the port is taken" in str(caught.value)
    assert "an older run" not in str(caught.value)
    assert "exit status 3" in str(caught.value)
    assert caught.value.returncode == 3
    assert log.read_text().startswith("an older run\n")


async def test_a_child_that_never_gets_ready_is_reported_after_the_time(tmp_path: Path) -> None:
    """A probe that says no, raises OSError or hangs ends in one error after the time-out."""

    async def refuses() -> bool:
        raise ConnectionRefusedError

    async def hangs() -> bool:
        await asyncio.sleep(600)
        return True

    child = _python(tmp_path, "import time; time.sleep(600)")
    await child.start()
    try:
        for probe in (_never, refuses, hangs):
            with pytest.raises(ChildError, match=r"not ready within 0\.2 s"):
                await child.wait_ready(probe, timeout_s=0.2)
        await child.wait_ready(_ready, timeout_s=5)
    finally:
        await child.stop()
    assert not child.running


async def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """SIGTERM, then SIGKILL; a second stop does nothing."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    child = _python(tmp_path, code)
    await child.start()

    async def deaf() -> bool:
        return "deaf" in child.tail()

    await child.wait_ready(deaf, timeout_s=10)
    await child.stop(grace_s=0.2)
    assert child.returncode == -signal.SIGKILL
    assert await child.wait() == -signal.SIGKILL
    await child.stop()


@pytest.mark.parametrize("end", ["stop", "kill", "its own"])
async def test_what_the_child_started_goes_with_it(tmp_path: Path, end: str) -> None:
    """Grandchildren end however the child ends."""
    code = (
        "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); "
        f"time.sleep({0.5 if end == 'its own' else 600})"
    )
    child = _python(tmp_path, code)

    async def said() -> bool:
        return bool(child.tail())

    await child.start()
    try:
        await child.wait_ready(said, timeout_s=10)
        grandchild = int(child.tail())
        if end == "stop":
            await child.stop()
        elif end == "kill":
            child.kill()
        else:
            assert await child.wait() == 0
    finally:
        child.kill()
    assert _gone(grandchild)


async def test_a_cancelled_stop_leaves_nothing_running(tmp_path: Path) -> None:
    """A second Ctrl-C during the grace kills at once."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    child = _python(tmp_path, code)
    await child.start()

    async def deaf() -> bool:
        return "deaf" in child.tail()

    await child.wait_ready(deaf, timeout_s=10)
    stopping = asyncio.create_task(child.stop(grace_s=600))
    await asyncio.sleep(0.1)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not child.running


async def test_a_child_is_out_of_the_terminals_reach(tmp_path: Path) -> None:
    """It leads its own session, so a terminal's Ctrl-C does not reach it."""
    child = _python(tmp_path, "import time; time.sleep(600)")
    await child.start()
    try:
        assert child.pid is not None
        assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid != os.getsid(0)
        with pytest.raises(ConfigError, match="already running"):
            await child.start()
    finally:
        await child.stop()


async def test_a_child_gets_exactly_its_environment_and_folder(tmp_path: Path) -> None:
    """The given environment arrives whole, library paths included, and nothing else does."""
    env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": "/nowhere", "NAME": "välue", "PYTHONPATH": "/else"}
    code = "import json, os; print(json.dumps([dict(os.environ), os.getcwd()], ensure_ascii=True))"
    child = Child("program", [sys.executable, "-E", "-c", code], log=tmp_path / "log", env=env, cwd=tmp_path)
    await child.start()
    assert await child.wait() == 0
    seen, folder = json.loads(child.tail())
    seen.pop("LC_CTYPE", None)  # Python's own addition where no locale is set
    assert seen == env
    assert Path(folder) == tmp_path


async def test_a_missing_program_is_a_configuration_error(tmp_path: Path) -> None:
    """A program that is not there is named before anything starts."""
    with pytest.raises(ConfigError, match="no program 'no-such-program'"):
        await Child("it", ["no-such-program"], log=tmp_path / "log").start()


def test_free_ports_differ_and_stay_clear_of_outgoing_connections() -> None:
    """No port comes twice, and none is of the range that the system gives to clients."""
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(20_000 <= port < 32_768 for port in ports)
