"""`waybill trace`: the story of one request as a timeline."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from queries.terminal import Text
from waybill.cli.federated import Federated, Reach, SitesFile, Strict, asked
from waybill.cli.options import Home, Json, out, resolve, tell, write_json_text

_COLUMNS: Final = """
    intake_id, sequence, occurred_at, stage, event_type, route.name as route, route.placement as placement,
    route.provider as provider, attempt, duration_ms, outcome, failure.code as failure,
    classification.effective as class, policy.decision as decision, retained.action as retained, trace_id,
    tenant_ref, actor_ref, subject_ref, task_type, purpose, consent.basis as consent_basis,
    consent.state as consent_state, redaction.removed as removed, redaction.applied as applied,
    context.selected as sources, context.left as sources_left, approval.authority as authority,
    approval.approver as approver, approval.note as note, usage.cost_usd as cost_usd, detail,
    (list_contains(['request.ended', 'request.rejected'], event_type) or stage = 'operator') as last
"""
_STORY: Final = f"""
select {_COLUMNS}
from events
where request_id = $id
order by min(occurred_at) over (partition by intake_id), intake_id, sequence
"""  # noqa: S608 - constants of this module
_JOINED: Final = f"""
with mine as (select distinct trace_id from events where request_id = $id or trace_id = $id),
story as (
    select *, max(occurred_at) over (partition by site, intake_id order by sequence) as told_at
    from events where trace_id in (select trace_id from mine)
)
select site, told_at, request_id, {_COLUMNS}
from story
order by told_at, site, intake_id, sequence
"""  # noqa: S608 - the same
"""One story over sites: by time, but never against an arrival's own order, whatever a site's clock says."""

_BAR: Final = 30


def trace(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id.")],
    federated: Federated = False,  # noqa: FBT002 - a flag
    strict: Strict = False,  # noqa: FBT002 - a flag
    sites: SitesFile = None,
    as_json: Json = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> int:
    """Show the story of a request from evidence: who asked what for, each step, what was taken out, how it ended.

    With `--federated`, everything of the same trace at all sites is one story, in order of time; the id may also be the
    trace's.

    Example: `waybill trace 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11`
    """
    settings = resolve(home=home)
    sql = _JOINED if federated else _STORY
    with asked(settings, Reach(federated, strict, sites)) as opened:
        holes = opened.holes(sql)
        with opened.evidence.query(sql, {"id": request_id}, settings.sql_seconds) as result:
            rows = [dict(zip(result.columns, row, strict=True)) for row in result]
        about = opened.described(holes)
    if not rows:
        tell(
            f"waybill: evidence at {settings.evidence_files().url('')} holds nothing of {request_id}: it was never "
            f"sent, or only just (evidence is up to {settings.freshness_seconds:g} s old)"
        )
        return 1
    if as_json:
        from queries.forms import json_text  # noqa: PLC0415 - `--help` needs none of it

        write_json_text(json_text({"sites": about, "rows": rows} if federated else rows))
        return 0
    if federated:
        out.print(joined(request_id, rows))
        return 0
    for intake in dict.fromkeys(row["intake_id"] for row in rows):
        out.print(timeline(request_id, [row for row in rows if row["intake_id"] == intake]))
    return 0


def timeline(request_id: str, rows: list[dict[str, Any]]) -> Table:
    """Draw one story; rows are in order."""
    first = rows[0]["occurred_at"]
    spans = [(row["occurred_at"] - first).total_seconds() * 1000 for row in rows]
    whole = max(spans[-1], 0.001)
    table = Table(title=_title(request_id, rows), title_justify="left", pad_edge=False)
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


def joined(request_id: str, rows: list[dict[str, Any]]) -> Table:
    """Draw one story over several sites; rows are in order."""
    first = rows[0]["told_at"]
    spans = [(row["told_at"] - first).total_seconds() * 1000 for row in rows]
    whole = max(spans[-1], 0.001)
    table = Table(title=_title(request_id, rows), title_justify="left", pad_edge=False)
    for column in ("ms", "", "site", "request", "stage", "event", "route", "what"):
        table.add_column(column, justify="right" if column == "ms" else "left", overflow="fold")
    for row, at in zip(rows, spans, strict=True):
        place = round(at / whole * (_BAR - 1))
        bar = Text("·" * place, "dim") + Text("●", "cyan") + Text("·" * (_BAR - 1 - place), "dim")
        told = (row["site"], row["request_id"], row["stage"], row["event_type"], _route(row), _what(row))
        table.add_row(f"{at:.1f}", bar, *(Text(text) for text in told))
    steps: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        steps.setdefault((row["site"], row["intake_id"]), set()).add(row["sequence"])
    missing: Counter[str] = Counter()
    for (site, _), seen in steps.items():
        missing[site] += max(seen) + 1 - len(seen)
    if held := [f"{count} of {site}" for site, count in missing.items() if count]:
        table.caption = f"steps that did not leave their site, or are not in evidence yet: {', '.join(held)}"
    return table


def _title(request_id: str, rows: list[dict[str, Any]]) -> Text:
    """Return what a story is of: the request, who asked, and what for."""
    traces = ", ".join(dict.fromkeys(row["trace_id"] for row in rows if row["trace_id"]))
    known = {
        name: ", ".join(dict.fromkeys(str(row[column]) for row in rows if row[column] is not None))
        for name, column in (
            ("by", "actor_ref"),
            ("of", "tenant_ref"),
            ("about", "subject_ref"),
            ("task", "task_type"),
            ("purpose", "purpose"),
            ("consent", "consent_basis"),
        )
    }
    told = "  ".join(f"{name} {value}" for name, value in known.items() if value)
    return Text(f"{request_id}   trace {traces}\n{told}", "italic")


def _route(row: dict[str, Any]) -> str:
    if not row["route"]:
        return ""
    where = ", ".join(part for part in (row["provider"], row["placement"]) if part)
    return f"{row['route']} ({where})" if where else str(row["route"])


def _what(row: dict[str, Any]) -> str:
    kind = row["event_type"]
    about_approval = kind.startswith("approval.")
    told = {
        "attempt": row["attempt"],
        "class": row["class"] if kind == "data.classified" else None,
        "policy": row["decision"],
        "took out": _listed(row["removed"], row["applied"]) if kind == "data.redacted" else None,
        "sources": _listed(row["sources"]) if kind == "context.selected" else None,
        "left out": _listed(row["sources_left"]) if kind == "context.selected" else None,
        "consent": row["consent_state"] if kind == "model.intended" and row["consent_state"] != "none" else None,
        "needs": row["authority"] if kind == "approval.requested" else None,
        "by": row["approver"] if about_approval else None,
        "approved by": row["approver"] if kind == "model.intended" else None,
        "note": row["note"] if about_approval else None,
        "took": f"{row['duration_ms']:.1f} ms" if row["duration_ms"] is not None else None,
        "cost": f"${row['cost_usd']:.6f}" if row["cost_usd"] else None,
        "retention": row["retained"] if kind == "response.filtered" else None,
        "failure": row["failure"],
        "outcome": row["outcome"],
        "detail": row["detail"] if row["stage"] == "operator" else None,
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)


def _listed(values: list[str] | None, how: list[str] | None = None) -> str | None:
    if not values:
        return None
    return ", ".join(values) + (f" ({', '.join(how)})" if how else "")
