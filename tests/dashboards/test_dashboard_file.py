"""The dashboard's file, and the rules that Grafana's own people hold dashboards to."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_fixtures import WorkerMetrics

from dashboards import grafana
from dashboards.panels import ROWS

ROOT = Path(__file__).resolve().parents[2]
BOARD: dict[str, Any] = json.loads(grafana.PATH.read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
UNITS = {"none", "s", "reqps", "ops", "cps", "wps", "Bps", "bytes", "percentunit", "currencyUSD"}


def selectors(expr: str) -> list[tuple[str, str]]:
    """Give each metric of a query with its matchers."""
    return re.findall(r"([a-z_]+)\{([^}]*)\}", expr)


def exposed() -> set[str]:
    """Give the names of all samples that a worker exposes."""
    return {
        family.name + suffix
        for family in WorkerMetrics().registry.collect()
        for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
    }


def test_the_file_is_what_the_code_makes() -> None:
    """Nobody edited the generated dashboard by hand, and nobody forgot to generate it."""
    assert grafana.main(["--check"]) == 0


def test_drift_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` fails on a file that differs, names what to do, and writes nothing."""
    copy = tmp_path / "waybill.json"
    assert grafana.main([str(copy)]) == 0
    assert grafana.main(["--check", str(copy)]) == 0
    copy.write_text(copy.read_text().replace("Dead letters", "Live letters"))
    before = copy.read_bytes()
    assert grafana.main(["--check", str(copy)]) == 1
    assert "python -m dashboards.grafana" in capsys.readouterr().err
    assert copy.read_bytes() == before


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` on a missing file exits with 2 and names it."""
    assert grafana.main(["--check", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_every_panel_of_the_definition_is_there() -> None:
    """No panel and no query gets lost between definition and file, and no title is used twice."""
    wanted = [(panel.title, query.expr) for row in ROWS for panel in row.panels for query in panel.queries]
    assert wanted == TARGETS
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)


def test_the_dashboard_has_a_fixed_uid_and_a_form_that_grafana_reads() -> None:
    """Links stay good over re-provisioning, and the schema is a version 1 dashboard of a current Grafana."""
    assert BOARD["uid"] == "waybill"
    assert BOARD.get("id") is None
    assert 36 <= BOARD["schemaVersion"] <= 41
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_data_source_is_a_variable() -> None:
    """Rule template-datasource: one Prometheus variable with the name and label that Grafana's linter expects."""
    (source,) = [variable for variable in BOARD["templating"]["list"] if variable["type"] == "datasource"]
    assert (source["name"], source["label"], source["query"]) == ("datasource", "Data source", "prometheus")


@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_are_variables(name: str) -> None:
    """Rules template-job and template-instance: labelled, multi-valued, from the chosen source, and never empty."""
    (variable,) = [each for each in BOARD["templating"]["list"] if each["name"] == name]
    assert variable["datasource"]["uid"] == "${datasource}"
    assert (variable["type"], variable["label"]) == ("query", name.capitalize())
    assert variable["multi"] is True
    assert (variable["includeAll"], variable["allValue"]) == (True, ".+")
    assert variable["refresh"] == 2, "rule template-on-time-change-reload"


def test_panels_explain_themselves() -> None:
    """Rules panel-title-description, panel-units and panel-datasource hold for each panel."""
    for panel in PANELS:
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_queries_match_job_site_and_instance() -> None:
    """Rules target-job and target-instance: no metric is read without the dashboard's own filters."""
    for title, expr in TARGETS:
        found = selectors(expr)
        assert found, title
        for metric, matchers in found:
            assert matchers.startswith('job=~"$job", site=~"$site", instance=~"$instance"'), metric
        bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expr)
        names = set(re.findall(r"\b(?:waybill|process)_[a-z_]+|\bup\b", bare))
        assert names == {metric for metric, _ in found}, title


def test_counters_are_read_through_rates() -> None:
    """Rules target-counter-agg and target-rate-interval: a raw counter is wrong after a restart of the worker."""
    for title, expr in TARGETS:
        for name, _ in selectors(expr):
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                reads = re.findall(rf"(\w+)\({name}\{{[^}}]*\}}\[(\$__\w+)\]\)", expr)
                assert reads, title
                assert len(reads) == len(re.findall(rf"\b{name}\{{", expr)), title
                assert set(reads) <= {("rate", "$__rate_interval"), ("increase", "$__rate_interval")} | {
                    ("increase", "$__range")
                }


def test_queries_name_metrics_that_exist() -> None:
    """A metric that was renamed or removed cannot leave an empty panel behind."""
    known = exposed() | {"up"}
    for title, expr in TARGETS:
        assert {name for name, _ in selectors(expr)} <= known, title


def test_every_metric_of_ours_is_looked_at() -> None:
    """There is no metric that nobody sees."""
    shown = " ".join(expr for _, expr in TARGETS)
    ours = [family.name for family in WorkerMetrics().registry.collect() if family.name.startswith("waybill_")]
    assert [name for name in ours if name not in shown] == []


def test_quantiles_keep_le() -> None:
    """A quantile is taken over buckets that kept their bounds."""
    for title, expr in TARGETS:
        assert ("histogram_quantile" in expr) == ("_bucket" in expr), title
        if "_bucket" in expr:
            assert re.search(r"sum by \(le\b", expr), title


def test_panels_lie_beside_each_other() -> None:
    """No panel covers another, none hangs over the edge, and every row is filled."""
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for one in places:
        for other in places:
            if one is not other:
                apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
                apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
                assert apart_x or apart_y
    for row in ROWS:
        assert sum(panel.span for panel in row.panels) % 24 == 0, row.title


def test_thresholds_rise() -> None:
    """Colours change in one direction only, and begin with green below the first step."""
    for panel in PANELS:
        first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert (first["color"], first["value"]) == ("green", None)
        values = [step["value"] for step in others]
        assert all(low < high for low, high in pairwise(values)), panel["title"]


def test_provisioning_has_fixed_ids_and_finds_the_dashboard() -> None:
    """Provisioning names fixed uids, and agrees with Prometheus' configuration and with docker-compose.yml."""
    folder = ROOT / "dashboards" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())
    boards = yaml.safe_load((folder / "dashboards" / "waybill.yml").read_text())
    assert sources["apiVersion"] == boards["apiVersion"] == 1
    (source,), (provider,) = sources["datasources"], boards["providers"]
    assert source["uid"] == "waybill-prometheus"
    assert provider["folderUid"] == "waybill"
    scraping = yaml.safe_load((ROOT / "dashboards" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert f"./dashboards/grafana:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]
