"""Every query of the dashboard over a real run: broker, models, worker, requests, and a Prometheus that watches."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_fixtures import ROOT, Prometheus, need, running_prometheus, substituted, wait_until

from dashboards import grafana
from waybill import dev_run

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]

REQUESTS = ROOT / "config" / "requests.jsonl"
START_S, SEND_S, STOP_S = 120.0, 120.0, 60.0

NEED_TROUBLE: dict[str, str] = {
    "Approvals by result A": "nobody is asked by the sample requests",
    "Waiting for a person A": "the same",
}
"""Panels that may stay empty in a good run, and why. The sample requests bring enough trouble to fill the others."""

BOARD = json.loads(grafana.PATH.read_text(encoding="utf-8"))
TARGETS = [
    (f"{panel['title']} {target['refId']}", target["expr"])
    for panel in BOARD["panels"]
    if panel["type"] != "row"
    for target in panel["targets"]
]


def waybill(*arguments: str) -> list[str]:
    """Give the command line of the program."""
    return [sys.executable, "-m", "waybill", *arguments]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The tests' own environment without settings of the program."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> Iterator[tuple[Path, dev_run.Run]]:
    """A pipeline on the development broker, started as a user starts it; gives its home and what it says of itself."""
    need("prometheus")
    with tempfile.TemporaryDirectory(prefix="waybill-run-") as folder:
        home, log = Path(folder) / "home", Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                waybill("dev", "--home", str(home)), cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        try:
            end = time.monotonic() + START_S
            while (found := dev_run.read(home)) is None:
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"the run did not start:\n{log.read_text(errors='replace')[-4000:]}", pytrace=False)
                time.sleep(0.1)
            yield home, found
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()  # its children are killed with it
                process.wait()


@pytest.fixture(scope="module")
def watched(run: tuple[Path, dev_run.Run], environment: dict[str, str]) -> Iterator[Prometheus]:
    """A Prometheus that watched the run while the sample requests went through it twice."""
    home, about = run
    sent = sum(1 for line in REQUESTS.read_text(encoding="utf-8").splitlines() if line.strip())
    with running_prometheus(f"http://127.0.0.1:{about.web_port}/metrics", {"site": "local"}) as running:
        wait_until(lambda: running.query("up == 1"), "the worker's metrics are scraped")
        for turn in (1, 2):  # a counter's first value is no rise: only the second turn shows in rates
            command = waybill("send", str(REQUESTS), "--home", str(home))
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SEND_S, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            wanted = sent * turn
            wait_until(lambda count=wanted: ended(running) == count, f"{wanted} requests have ended", SEND_S)
            wait_until(lambda: settled(running), "all evidence is visible", SEND_S)
        yield running


def ended(running: Prometheus) -> float:
    """Give how many requests have ended."""
    return sum(float(each["value"][1]) for each in running.query("sum(waybill_requests_total)"))


def settled(running: Prometheus) -> bool:
    """Say whether every story is closed and the sink, which never waits longer than 5 s, has nothing more to show."""
    return not running.query("sum(waybill_open_stories) > 0 or changes(waybill_evidence_rows_total[8s]) > 0")


def test_every_panel_shows_a_real_run(watched: Prometheus) -> None:
    """With the sample requests through the whole pipeline, no panel is empty and none shows what is no number."""
    empty = []
    for title, expr in TARGETS:
        samples = watched.query(substituted(expr, rate="2m"))
        if not samples or any(math.isnan(float(sample["value"][1])) for sample in samples):
            empty.append(title)
    assert [title for title in empty if title not in NEED_TROUBLE] == []


def test_the_figures_are_those_of_the_run(watched: Prometheus, run: tuple[Path, dev_run.Run]) -> None:
    """Prometheus counted one end, one whole story and one admission for each request, on both sides of the boundary."""
    counts = {
        name: sum(float(each["value"][1]) for each in watched.query(f"sum({name})"))
        for name in ("waybill_requests_total", 'waybill_stories_total{complete="yes"}', "waybill_admissions_total")
    }
    assert len(set(counts.values())) == 1, counts
    placements = {each["metric"]["placement"] for each in watched.query("sum by (placement) (waybill_requests_total)")}
    assert placements == {"local", "hosted", "none"}
    assert not watched.query("waybill_overdue_stories > 0")
    assert not watched.query('waybill_stories_total{complete="no"} > 0')


def test_a_good_run_raises_no_critical_alert(watched: Prometheus) -> None:
    """Of the alerts only those fire that the sample requests' own trouble raises."""
    firing = {rule["name"] for rule in watched.rules() if rule["state"] == "firing"}
    assert firing <= {"DeadLettersRising"}
