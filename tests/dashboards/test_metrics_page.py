"""The page on metrics and the program's metrics say the same."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_fixtures import WorkerMetrics, exercise

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \| (.*?) ?\| (.+) \|$")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the process metrics exist on Linux alone")


def documented() -> dict[str, tuple[str, set[str]]]:
    """Give type and labels of each metric in the page's table."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [ROW.match(line) for line in page.splitlines() if line.startswith("| `")]
    assert all(rows), "a row of the table is not `name`, type, labels, meaning"
    return {row[1]: (row[2], set(re.findall(r"`([a-z]+)`", row[3]))) for row in rows if row}


def name_of(family: Metric) -> str:
    """Give the name to query by."""
    return family.name + ("_total" if family.type == "counter" else "")


def exposed() -> dict[str, tuple[str, set[str]]]:
    """Give type and labels of each metric that a worker exposes once everything has happened."""
    metrics = WorkerMetrics()
    exercise(metrics)
    return {
        name_of(family): (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for family in metrics.registry.collect()
    }


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """Names, types and labels are the same in `docs/metrics.md` and in `streams/metrics.py`, in both directions."""
    assert documented() == exposed()


def test_names_follow_the_conventions() -> None:
    """Our metrics carry our prefix and base units, and no label has many values by its nature."""
    for name, (_, labels) in exposed().items():
        assert name.startswith(("waybill_", "process_"))
        assert not re.search(r"_(ms|milliseconds|kb|mb|minutes|percent)(_total)?$", name)
        assert labels.isdisjoint({"request", "tenant", "actor", "session", "message", "le"})


def test_every_metric_has_a_help_text() -> None:
    """Whoever reads the raw exposition learns what each number is."""
    assert all(len(family.documentation) > 10 for family in WorkerMetrics().registry.collect())
