"""How decision records and their drift look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from policy.placement import pages as decision_pages
from policy.placement.form import DecisionRecord
from queries.measured import Compared, Measured
from queries.terminal import Text

STAND_IN = "stand-in"
"""Who answers where no provider is set; its speed is nobody's."""


def record_panel(record: DecisionRecord, left: str) -> Panel:
    """Draw a whole record.

    Args:
        record: the record.
        left: how long its review is off, in words.
    """
    about = Table.grid(padding=(0, 2))
    for name, value in (
        ("status", record.status),
        ("owner", record.owner),
        ("decided", str(record.decided)),
        ("review by", f"{record.review_by} ({left})"),
    ):
        about.add_row(Text(name, "dim"), Text(value))
    parts: list[RenderableType] = [Text(" ".join(record.title.split()), "bold"), Text(), about]
    for title, answered in decision_pages.questions(record).items():
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        for field, name in decision_pages.ANSWERS.items():
            grid.add_row(Text(name.lower(), "dim"), Text(" ".join(getattr(answered, field).split())))
        parts += [Text(), Text(title, "bold cyan"), grid]
    places = _table("what lives", "where", "in region")
    for what, place in decision_pages.locations(record).items():
        _row(places, what, place.place, place.region)
    pinned = _table("what was reviewed", "name and version", "digest")
    for row in decision_pages.pins(record):
        _row(pinned, *row)
    assumed = _table("what is assumed", "value", "tolerance")
    for name, number in decision_pages.assumptions(record).items():
        label, value = decision_pages.NUMBERS[name][0], decision_pages.number(name, number.value)
        _row(assumed, label, value, f"{number.tolerance_percent:g} %")
    return Panel(Group(*parts, Text(), places, pinned, assumed), title=Text(record.route, "bold"), title_align="left")


def drift_table(
    lines: Iterable[Compared], others: Mapping[str, tuple[str, ...]], measured: Mapping[str, Measured]
) -> Table:
    """Draw what was measured beside what was assumed.

    Args:
        lines: the numbers, route by route.
        others: names of models that answered and are not pinned, by route.
        measured: what else evidence says, by route.
    """
    table = Table("route", "what", "assumed", "tolerance", "measured", "verdict", "calls of")
    seen = ""
    for line in lines:
        known = measured.get(line.route)
        if line.route != seen and seen:
            table.add_section()
        new, seen = line.route != seen, line.route
        shown = "" if line.measured is None else decision_pages.number(line.what, line.measured)
        table.add_row(
            Text(line.route if new else ""),
            decision_pages.NUMBERS[line.what][0],
            decision_pages.number(line.what, line.assumed),
            f"{line.tolerance_percent:g} %",
            shown,
            Text(line.verdict, _style(line)),
            Text(_source(known) if new else ""),
        )
        if new and others.get(line.route):
            names = ", ".join(others[line.route])
            table.add_row("", "Model", Text("as pinned"), "", Text(names), Text("another model", "red"), "")
    return table


def _style(line: Compared) -> str:
    if line.measured is None:
        return "dim"
    return "green" if line.over_percent is None else "red"


def _source(known: Measured | None) -> str:
    if known is None:
        return "nobody"
    note = " (its speed and tokens, not a provider's)" if STAND_IN in known.providers else ""
    return f"{', '.join(known.providers)}: {known.calls}{note}"


def _table(*heads: str) -> Table:
    table = Table(*heads, expand=True)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(" ".join(cell.split())) for cell in cells))
