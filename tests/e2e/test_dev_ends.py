"""However `waybill dev` ends, nothing is left running; and what it can mend, it mends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from dev_run import ROOT, left_of, running, waybill
from triton_fixtures import need_triton

SAMPLES = str(ROOT / "config" / "requests.jsonl")

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def _triton():
    """Without Triton the runs would be other runs."""
    need_triton()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=str,
)
def test_a_signal_stops_everything_in_order(tmp_path: Path, number, code):
    """After one signal the worker drains, the broker writes its log out, and no process is left."""
    with running(tmp_path / "home") as run:
        run.until_ready()
        family = run.family()
        assert len(family) >= 4  # broker, Triton, stand-in, worker
        run.signal(number)
        assert run.wait() == code
        assert left_of(family) == []
    assert (tmp_path / "home" / "broker" / "clean-stop").is_file()
    assert (tmp_path / "home" / "logs" / "worker.log").read_text().rstrip().endswith("stopped")
    assert not (tmp_path / "home" / "run.json").exists()


def test_a_second_signal_ends_at_once(tmp_path: Path):
    """Who presses Ctrl-C twice does not wait for what is in flight."""
    with running(tmp_path / "home", "--requests", SAMPLES) as run:
        run.until(lambda: "sent 16/16" in run.said())
        family = run.family()
        run.signal(signal.SIGINT)
        run.until(lambda: "stopping (again: at once)" in run.said())
        began = time.monotonic()
        run.signal(signal.SIGINT)
        assert run.wait() == 130
        assert time.monotonic() - began < 5  # calls in flight would get 20 s
        assert left_of(family) == []


@pytest.mark.parametrize("after_s", [0.3, 1.2, 2.0])
def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path, after_s):
    """Whatever is half started when Ctrl-C comes is stopped too."""
    with running(tmp_path / "home") as run:
        time.sleep(after_s)
        family = run.family()
        run.signal(signal.SIGINT)
        assert run.wait() in {130, -signal.SIGINT}  # -2 while it loads; a shell shows 130 for both
        assert left_of(family) == []
    assert "Traceback" not in run.said()


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path):
    """`kill -9` of the supervisor takes everything along, and the next run says what that means for the log."""
    home = tmp_path / "home"
    with running(home) as run:
        run.until_ready()
        family = run.family()
        run.process.kill()
        run.process.wait()
        assert left_of(family) == []
    with running(home) as run:
        run.until_ready()
        assert "was not stopped in order last time" in run.said()
        run.signal(signal.SIGINT)
        assert run.wait() == 130


def test_a_killed_worker_is_started_again_and_loses_nothing(tmp_path: Path):
    """After `kill -9` of the worker in the midst of requests, each has its response and its whole story."""
    home = tmp_path / "home"
    with running(home, "--requests", SAMPLES, "--until-done") as run:
        run.until(lambda: "sent 16/16" in run.said())
        run.worker().kill()
        assert run.wait(90) == 0, run.said()
    assert "the worker ended (signal 9); it starts again" in run.said()
    assert "complete in evidence 16/16" in run.said()


def test_other_commands_find_the_run_by_themselves(tmp_path: Path):
    """While it runs, send, receipt, trace and doctor need nothing but the home."""
    home = tmp_path / "home"
    with running(home) as run:
        run.until_ready()
        sent = waybill("send", SAMPLES, "--wait", "--home", str(home))
        assert sent.returncode == 0, sent.stderr
        alone = waybill("send", SAMPLES, "--home", str(home))
        ids = alone.stdout.split()
        assert len(ids) == 16
        doctor = waybill("doctor", "--home", str(home))
        assert (doctor.returncode, doctor.stdout.count("✗")) == (0, 0), doctor.stdout
        end = time.monotonic() + 30
        while (found := waybill("receipt", ids[0], "--json", "--home", str(home))).returncode != 0:
            assert time.monotonic() < end, found.stderr
        assert f'"requestId": "{ids[0]}"' in found.stdout
        while "request.ended" not in (traced := waybill("trace", ids[0], "--home", str(home))).stdout:
            assert time.monotonic() < end, traced.stderr
        again = waybill("dev", "--home", str(home))
        assert (again.returncode, "already runs in" in again.stderr) == (2, True)


def test_the_end_of_the_broker_ends_the_run(tmp_path: Path):
    """What a dead broker acknowledged last may be lost: the run says so and ends, with nothing left."""
    with running(tmp_path / "home") as run:
        run.until_ready()
        family = run.family()
        next(child for child in family if "noida-db" in child.cmdline()[0]).kill()
        assert run.wait() == 1
        assert left_of(family) == []
    assert "the broker ended by itself (signal 9)" in run.said()
    assert "Traceback" not in run.said()


def test_a_worker_that_cannot_start_ends_the_run(tmp_path: Path):
    """A setting that only the worker finds wrong is told once, as configuration, and not tried again and again."""
    routes = tmp_path / "routes.yaml"
    routes.write_text((ROOT / "config" / "routes.yaml").read_text().replace("endpoint: local ", "endpoint: elsewhere "))
    done = waybill("dev", "--home", str(tmp_path / "home"), WAYBILL_ROUTES=str(routes))
    assert done.returncode == 2
    assert "WAYBILL_ENDPOINTS__ELSEWHERE__KIND" in done.stderr
    assert "Traceback" not in done.stderr
