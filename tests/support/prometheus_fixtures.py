"""A real Prometheus for tests, and something real for it to scrape."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
import yaml

from streams.brokers.process import free_port
from streams.consent import ConsentMetrics
from streams.metrics import Metrics
from streams.stages.approvals import ApprovalMetrics

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "dashboards" / "alerts.yml"

SCRAPE = "200ms"
"""How often the tests' Prometheus scrapes."""

START_S = 30.0
"""Longest wait for Prometheus to be ready, and for the first samples."""

STANDS_FOR = {"$__interval": "1s", "$__range": "5m", "$job": ".+", "$site": ".*", "$instance": ".+"}
"""What Grafana would put in the place of its variables, with everything selected."""


def need(program: str) -> str:
    """Give the program's path; skip the test, with the reason, where it is missing (with `CI=true` a failure)."""
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"there is no program {program}: apt-get install prometheus"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the Prometheus tests: {reason}", pytrace=False)
    pytest.skip(reason)


def substituted(expr: str, *, rate: str = "5s") -> str:
    """Give a query as Grafana would send it, with everything selected; `rate` stands for `$__rate_interval`."""
    stands_for = STANDS_FOR | {"$__rate_interval": rate}
    for variable in sorted(stands_for, key=len, reverse=True):
        expr = expr.replace(variable, stands_for[variable])
    return expr


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _get(self, path: str, **parameters: str) -> Any:
        try:
            with urlopen(f"{self.url}{path}?{urlencode(parameters)}", timeout=10) as answer:  # noqa: S310 - our own
                return json.load(answer)["data"]
        except HTTPError as error:
            raise AssertionError(f"Prometheus refuses {parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Give the answer to an instant query: samples with `metric` and `value`."""
        answer: list[dict[str, Any]] = self._get("/api/v1/query", query=expr)["result"]
        return answer

    def label_values(self, label: str, selector: str) -> list[str]:
        """Give the values of a label, as Grafana's `label_values(selector, label)` does."""
        values: list[str] = self._get(f"/api/v1/label/{label}/values", **{"match[]": selector})
        return values

    def rules(self) -> list[dict[str, Any]]:
        """Give the rules that are loaded."""
        groups = self._get("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Give what is scraped."""
        found: list[dict[str, Any]] = self._get("/api/v1/targets")["activeTargets"]
        return found


def wait_until(true: Any, what: str, timeout_s: float = START_S) -> None:
    """Ask again and again until `true()` is so."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)


@contextmanager
def running_prometheus(exposition: str, labels: Mapping[str, str]) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes `exposition` (a URL) as the job `waybill`, with the project's alert rules."""
    program = need("prometheus")
    place = urlsplit(exposition)
    config = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "waybill",
                "metrics_path": place.path,
                "static_configs": [{"targets": [place.netloc], "labels": dict(labels)}],
            }
        ],
    }
    with tempfile.TemporaryDirectory(prefix="waybill-prometheus-") as home:
        folder = Path(home)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        address = f"127.0.0.1:{free_port()}"
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdout=output,
                stderr=output,
            )
        try:
            running = Prometheus(f"http://{address}")
            wait_until(lambda: _ready(running.url, process, log), "Prometheus is ready")
            yield running
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"Prometheus did not start:\n{log.read_text(errors='replace')[-4000:]}", pytrace=False)
    try:
        with urlopen(f"{url}/-/ready", timeout=2) as answer:  # noqa: S310 - our own
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


class WorkerMetrics(Metrics):
    """All that one worker counts, on one registry, as assembly puts it together."""

    def __init__(self) -> None:
        super().__init__()
        self.consents = ConsentMetrics(self.registry)
        self.approvals = ApprovalMetrics(self.registry)


def exercise(metrics: WorkerMetrics) -> None:
    """Move every metric once, with the labels that the stages give them."""
    for result in ("admitted", "parked", "rejected", "denied"):
        metrics.admitted.labels(result).inc()
    metrics.ended.labels("completed", "local").inc()
    metrics.ended.labels("completed", "hosted").inc()
    metrics.ended.labels("unknown", "none").inc()
    metrics.dead_letters.labels("not_json").inc()
    metrics.attempts.labels("hosted-general", "stand-in", "completed").inc()
    metrics.tokens.labels("hosted-general", "input").inc(120)
    metrics.tokens.labels("hosted-general", "output").inc(30)
    metrics.cost.labels("hosted-general").inc(0.001)
    metrics.in_flight.labels("hosted").set(3)
    for stage in ("admission", "queue", "intent", "model", "finish", "total"):
        metrics.stage_seconds.labels(stage).observe(0.03)
    for stage in ("admission", "dispatch"):
        metrics.transaction_seconds.labels(stage).observe(0.004)
    metrics.lag.labels("dispatch", "ai.work.hosted", 0).set(7)
    metrics.evidence_rows.inc(12)
    metrics.evidence_rejected.inc()
    metrics.evidence_bytes.inc(9_000)
    metrics.flush_seconds.observe(0.02)
    metrics.freshness.set(4.2)
    metrics.open_stories.set(3)
    metrics.overdue_stories.set(0)
    metrics.stories.labels("yes").inc()
    metrics.restarts.labels("sink").inc()
    metrics.detector_failures.inc()
    metrics.policy_refused.inc()
    metrics.consents.bad.inc()
    metrics.consents.entries.set(5)
    metrics.consents.fresh.set(1)
    for result in ("requested", "approved", "denied", "expired", "void"):
        metrics.approvals.results.labels(result).inc()
    metrics.approvals.waiting.labels(0).set(1)


@pytest.fixture(scope="module")
def exposition_url() -> Iterator[str]:
    """Where the program's own exposition is served while every metric moves, several times a second."""
    metrics = WorkerMetrics()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.exposition()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    done = threading.Event()

    def move() -> None:
        while not done.wait(0.2):
            exercise(metrics)

    exercise(metrics)
    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=move)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def prometheus(exposition_url: str) -> Iterator[Prometheus]:
    """A Prometheus that has scraped `exposition_url` often enough for rates."""
    with running_prometheus(exposition_url, {"site": "local"}) as running:
        wait_until(
            lambda: any(float(each["value"][1]) >= 8 for each in running.query("count_over_time(up[1m])")),
            "eight scrapes",
        )
        yield running
