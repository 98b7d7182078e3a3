"""`waybill trace`: the story of one request as a timeline."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from waybill.cli.interrupts import listen
from waybill.cli.options import Home, out, resolve, tell

_STORY: Final = """
select intake_id, sequence, occurred_at, stage, event_type, route.name as route, route.placement as placement,
       route.provider as provider, attempt, duration_ms, outcome, failure.code as failure,
       classification.effective as class, policy.decision as decision, retained.action as retained, trace_id,
       (list_contains(['request.ended', 'request.rejected'], event_type) or stage = 'operator') as last
from events
where request_id = $id
order by min(occurred_at) over (partition by intake_id), intake_id, sequence
"""
_BAR: Final = 30


def trace(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id.")],
    home: Home = None,
) -> int:
    """Show the story of a request from evidence: when each step happened, where, and how it ended.

    Example: `waybill trace 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11`
    """
    settings = resolve(home=home)
    from queries.database import Evidence  # noqa: PLC0415 - `--help` needs none of it

    listen()
    with (
        Evidence(settings.evidence) as evidence,
        evidence.query(_STORY, {"id": request_id}, settings.sql_seconds) as result,
    ):
        rows = [dict(zip(result.columns, row, strict=True)) for row in result]
    if not rows:
        tell(
            f"waybill: evidence at {settings.evidence} holds nothing of {request_id}: it was never sent, or only just "
            f"(evidence is up to {settings.freshness_seconds:g} s old)"
        )
        return 1
    for intake in dict.fromkeys(row["intake_id"] for row in rows):
        out.print(timeline(request_id, [row for row in rows if row["intake_id"] == intake]))
    return 0


def timeline(request_id: str, rows: list[dict[str, Any]]) -> Table:
    """Draw one story; rows are in order."""
    first = rows[0]["occurred_at"]
    spans = [(row["occurred_at"] - first).total_seconds() * 1000 for row in rows]
    whole = max(spans[-1], 0.001)
    table = Table(title=f"{request_id}   trace {rows[0]['trace_id']}", title_justify="left", pad_edge=False)
    for column in ("ms", "", "stage", "event", "route", "what"):
        table.add_column(column, justify="right" if column == "ms" else "left", overflow="fold")
    for row, at in zip(rows, spans, strict=True):
        place = round(at / whole * (_BAR - 1))
        bar = Text("·" * place, "dim") + Text("●", "cyan") + Text("·" * (_BAR - 1 - place), "dim")
        table.add_row(f"{at:.1f}", bar, row["stage"], row["event_type"], _route(row), _what(row))
    missing = set(range(rows[-1]["sequence"] + 1)) - {row["sequence"] for row in rows}
    if missing:
        table.caption = f"steps {', '.join(map(str, sorted(missing)))} are not in evidence (yet)"
    elif not rows[-1]["last"]:
        table.caption = "it has not ended (or its end is not in evidence yet)"
    return table


def _route(row: dict[str, Any]) -> str:
    return f"{row['route']} ({row['provider']}, {row['placement']})" if row["route"] else ""


def _what(row: dict[str, Any]) -> str:
    told = {
        "attempt": row["attempt"],
        "class": row["class"] if row["event_type"] == "data.classified" else None,
        "policy": row["decision"],
        "took": f"{row['duration_ms']:.1f} ms" if row["duration_ms"] is not None else None,
        "retention": row["retained"] if row["event_type"] == "response.filtered" else None,
        "failure": row["failure"],
        "outcome": row["outcome"],
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
