"""`waybill worker` before it runs: what is wrong is one sentence, and a signal ends it in order at any moment."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from dev_run import ROOT, environment

BASE = {
    "WAYBILL_IDENTITY__METHOD": "unsigned",
    "WAYBILL_IDENTITY__ALLOW_UNSIGNED": "true",
    "WAYBILL_ENDPOINTS__LOCAL__KIND": "in-process",
    "WAYBILL_ENDPOINTS__HOSTED__KIND": "openai",
    "WAYBILL_ENDPOINTS__HOSTED__URL": "http://127.0.0.1:9/v1",
    "WAYBILL_KAFKA": "127.0.0.1:9",
    "WAYBILL_WEB_PORT": "0",
}


def start(home: Path, cwd: Path = ROOT, **changes: str) -> subprocess.Popen[str]:
    """Start a worker."""
    variables = environment(**{**BASE, "WAYBILL_HOME": str(home), **changes})
    return subprocess.Popen(
        [sys.executable, "-m", "waybill", "worker"],
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(home: Path, cwd: Path = ROOT, **changes: str) -> str:
    """Start a worker whose settings are wrong; return the one line that it says."""
    worker = start(home, cwd, **changes)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 2, said
    (line,) = said.splitlines()
    assert line.startswith("waybill: ")
    return line


def test_a_web_port_in_use_is_one_sentence(tmp_path: Path):
    """The port, and the setting that chooses another one."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(tmp_path, WAYBILL_WEB_PORT=str(port))
    assert f"port {port} of 127.0.0.1" in line
    assert "WAYBILL_WEB_PORT" in line


def test_an_address_that_is_not_this_machines_is_one_sentence(tmp_path: Path):
    """Health cannot be served where there is no such address."""
    assert "WAYBILL_WEB_HOST" in refused(tmp_path, WAYBILL_WEB_HOST="192.0.2.1", WAYBILL_WEB_PORT="16066")


def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    """The folder and the system's reason."""
    (tmp_path / "file").write_text("")
    assert "cannot be made: Not a directory" in refused(tmp_path / "file" / "home")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WAYBILL_ENDPOINTS__HOSTED__KEY_FILE": "/nowhere/key"}, "cannot read the key file /nowhere/key"),
        ({"WAYBILL_ENDPOINTS__HOSTED__URL": "http://models.example.com/v1"}, "unencrypted"),
        ({"WAYBILL_ENDPOINTS__HOSTED__AUTH": "minted"}, "endpoint hosted"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_one_sentence(tmp_path: Path, changes, said):
    """No key, no encryption, half of a credential: told before anything starts, without a word of the libraries."""
    assert said in refused(tmp_path, **changes)


def test_outside_of_the_project_the_settings_are_named(tmp_path: Path):
    """Who runs it elsewhere reads what to set."""
    line = refused(tmp_path / "home", tmp_path, PYTHONPATH=str(ROOT))
    assert "run `waybill` in the folder of the project, or set WAYBILL_ROUTES" in line


@contextmanager
def silence():
    """A broker that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=str)
@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.2, 3.0])
def test_a_signal_while_it_starts_is_an_orderly_end(tmp_path: Path, number, after_s):
    """Loading, checking or waiting for a broker: exit code 0 and no traceback."""
    with silence() as broker:
        worker = start(tmp_path, WAYBILL_KAFKA=broker, WAYBILL_NAMES_PYTHON=sys.executable)
        until_caught(worker.pid)
        time.sleep(after_s)
        assert worker.poll() is None
        worker.send_signal(number)
        _, said = worker.communicate(timeout=30)
    assert (worker.returncode, "Traceback" in said) == (0, False), said


def until_caught(pid: int) -> None:
    """Wait until the program has come to its first lines: before that nobody can catch a signal."""
    end = time.monotonic() + 30
    while not caught(pid):
        assert time.monotonic() < end
        time.sleep(0.02)


def caught(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)
