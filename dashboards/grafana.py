"""Write the Grafana dashboard: `python -m dashboards.grafana [--check] [FILE]`.

The panels are data in `dashboards.panels`; this module turns them into Grafana's JSON with Grafana's own builders. What
Grafana is provisioned with is the file, so the file is in the repository and `--check` says whether it has drifted.
Exit codes: 0 done (or no drift), 1 drift, 2 the file cannot be written or read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final, cast

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from dashboards.panels import ROWS, Panel, Query

UID: Final = "waybill"
"""The dashboard's fixed id; links to it stay good."""

PATH: Final = Path(__file__).resolve().parent / "grafana" / "waybill.json"
"""Where the dashboard lies."""

_SCHEMA_VERSION: Final = 41
"""Grafana's version of the dashboard form, fixed here so that the file does not hang on the builders' version; it is
the last one before dashboards v2, and every Grafana from 11.6 on reads it."""

_DEFAULTS: Final = frozenset(
    (
        *("style", "hide", "repeatDirection", "transformations", "transparent", "skipUrlSync", "allowCustomValue"),
        *("auto", "auto_count", "auto_min", "percentChangeColorMode", "showPercentChange", "wideLayout"),
    )
)
_HEIGHTS: Final = {"stat": 4, "timeseries": 8}
_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def build() -> dict[str, Any]:
    """Give the dashboard as Grafana's JSON."""
    board = (
        dashboard.Dashboard("Waybill")
        .uid(UID)
        .description("What crosses the boundary, how fast, how it ends, and whether the evidence keeps up.")
        .tags(["waybill"])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .editable()
    )
    board.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name, label, scope, every in (
        ("job", "Job", "", ".+"),
        ("site", "Site", '{job=~"$job"}', ".*"),
        ("instance", "Instance", '{job=~"$job", site=~"$site"}', ".+"),
    ):
        board.with_variable(_variable(name, label, scope, every))
    number = 0
    for row in ROWS:
        number += 1
        board.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            board.with_panel(_panel(panel, number))
    document = cast("dict[str, Any]", json.loads(JSONEncoder(sort_keys=True).encode(board.build())))
    trimmed = cast("dict[str, Any]", _trim(document))
    return trimmed | {"schemaVersion": _SCHEMA_VERSION, "version": 1}


def render() -> str:
    """Give the dashboard's file, whole."""
    return json.dumps(build(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _trim(value: Any) -> Any:
    """Leave out what the builders say without being asked, which differs between their versions."""
    if isinstance(value, list):
        return [_trim(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _trim(each) for key, each in value.items() if key not in _DEFAULTS}
    if kept.get("type") in {"query", "datasource"}:
        kept.pop("id", None)  # a variable's id, all zeros; a panel keeps its own
    return kept


def _variable(name: str, label: str, scope: str, every: str) -> dashboard.QueryVariable:
    # A gauge without labels is there from a worker's first moment; `every` lets in what has no label `site` at all.
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query(f"label_values(waybill_open_stories{scope}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(every)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _panel(panel: Panel, number: int) -> stat.Panel | timeseries.Panel:
    return _stat(panel, number) if panel.kind == "stat" else _timeseries(panel, number)


def _stat(panel: Panel, number: int) -> stat.Panel:
    made = (
        stat.Panel()
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False).fields(""))
    )
    _describe(made, panel, number)
    return made


def _timeseries(panel: Panel, number: int) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.steps:
        # The builders' name for this enumeration was misspelt at first and then put right; its value never changed.
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(cast("Any", "dashed")))
    _describe(made, panel, number)
    return made


def _describe(made: stat.Panel | timeseries.Panel, panel: Panel, number: int) -> None:
    made.id(number).title(panel.title).description(panel.about).datasource(_SOURCE)
    made.unit(panel.unit).min(0).no_value("-").span(panel.span).height(_HEIGHTS[panel.kind])
    if panel.top is not None:
        made.max(panel.top)
    steps = [models.Threshold(value=None, color="green")]
    steps += [models.Threshold(value=value, color=color) for value, color in panel.steps]
    made.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        made.with_target(_target(query, letter))


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).range().datasource(_SOURCE)
    )


def main(arguments: list[str] | None = None) -> int:
    """Write the dashboard, or with `--check` only compare; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.grafana",
        description="Write the Grafana dashboard from its definition in dashboards/panels.py.",
        epilog="example: python -m dashboards.grafana --check",
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", type=Path, default=PATH, help="the file (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file has drifted")
    asked = parser.parse_args(arguments)
    wanted = render()
    try:
        if not asked.check:
            asked.file.write_text(wanted, encoding="utf-8")
            return 0
        found = asked.file.read_text(encoding="utf-8")
    except OSError as error:
        print(f"{asked.file}: {error.strerror}", file=sys.stderr)  # noqa: T201 - where a program says what is wrong
        return 2
    if found != wanted:
        print(f"{asked.file} has drifted: run `python -m dashboards.grafana`", file=sys.stderr)  # noqa: T201 - the same
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
