"""`waybill replay`: what other policies would have decided on past requests; nobody is called."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from waybill.cli.moments import moment
from waybill.cli.options import Home, Json, out, resolve, write_json

if TYPE_CHECKING:
    from waybill.offline import Replayed


def replay(
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="DIR", help="Decide by these policies (default: those in force now)."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only requests from then on: RFC 3339, or ago as `12h` or `30d`.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=0, help="Show at most so many requests.")] = 20,
    as_json: Json = False,  # noqa: FBT002 - a flag
    routes: Annotated[Path | None, typer.Option(metavar="FILE", help="The route table.")] = None,
    home: Home = None,
) -> int:
    """Decide past requests again, from their evidence, and show what would change. Exit code 1 where something would.

    What was asked is not in evidence and is not needed: a decision rests on labels, facts and consent as they were.

    Example: `waybill replay --since 30d --policy review/policy`
    """
    settings = resolve(home=home, routes=routes)
    from queries.database import Evidence  # noqa: PLC0415 - `--help` needs none of it
    from queries.decided import decisions  # noqa: PLC0415 - the same
    from waybill import offline  # noqa: PLC0415 - the same

    begin = moment(since, datetime.now(UTC)) if since is not None else None
    book = offline.book_of(settings, policy)
    with Evidence(settings.evidence_files()) as evidence:
        found = offline.replay(decisions(evidence, since=begin, timeout_s=settings.sql_seconds), book)
    if as_json:
        write_json(_json(found, book.version))
    else:
        _show(found, book.version, rows)
    return 1 if found.changes else 0


def _json(found: Replayed, version: str) -> dict[str, object]:
    return {
        "rulebook": version,
        "decided": found.decided,
        "unreadable": found.unreadable,
        "summary": [{"before": before, "after": after, "requests": count} for before, after, count in found.summary],
        "changes": [
            {
                "requestId": change.request_id,
                "decidedAt": change.at,
                "before": change.before,
                "after": change.after,
                "reasons": change.reasons,
            }
            for change in found.changes
        ],
    }


def _show(found: Replayed, version: str, rows: int) -> None:
    changes = len(found.changes) or "none"
    out.print(f"Replayed {found.decided} decisions against rulebook {version}: {changes} would change", soft_wrap=True)
    if found.unreadable:
        out.print(f"{found.unreadable} are left out: evidence does not hold what they rest on")
    if not found.changes:
        return
    summary = Table("was", "would be", "requests")
    for before, after, count in found.summary:
        summary.add_row(before, after, str(count))
    out.print(summary)
    table = Table("request", "decided", "was", "would be", "because")
    for change in found.changes[:rows]:
        at = f"{change.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(change.request_id, at, change.before, change.after, ", ".join(change.reasons[:3]))
    if rows:
        out.print(table)
    if len(found.changes) > rows:
        out.print(f"and {len(found.changes) - rows} more (--rows, or --json for all)")
