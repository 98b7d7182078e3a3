"""What `waybill dev` prints when its requests have ended: outcomes, one receipt, one answer out of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queries.database import Evidence
from queries.render import render
from queries.terminal import Text
from waybill.cli.lines import Line
from waybill.cli.options import command, out
from waybill.cli.receipts import outcomes_table, receipt_panel
from waybill.cli.stories import LEFT_THE_BUILDING
from waybill.cli.traffic import Progress
from waybill.settings import Settings

_QUERY_S = 10.0


def report(lines: Sequence[Line], progress: Progress, settings: Settings) -> None:
    """Print it; blocks while DuckDB reads."""
    responses = progress.responses
    rows = [(line.number, found) for line in lines if (found := _found(line, progress)) is not None]
    out.print()
    out.print(outcomes_table(rows))
    shown = next((value for value in responses.values() if _crossed(value)), None) or next(
        iter(responses.values()), None
    )
    if shown is not None:
        out.print()
        out.print(receipt_panel(shown))
    out.print()
    out.print(Text("What left the building", "bold") + Text(", by SQL over the evidence:"))
    out.print(command(f'sql "{LEFT_THE_BUILDING}"', settings.home), soft_wrap=True)
    with Evidence(settings.evidence_files()) as asked:
        render(asked.query(LEFT_THE_BUILDING, timeout_s=_QUERY_S), "auto", out)
    out.print()


def _found(line: Line, progress: Progress) -> dict[str, Any] | None:
    if line.request_id in progress.responses:
        return progress.responses[line.request_id]
    return progress.dead.get(line.request_id)


def _crossed(response: dict[str, Any]) -> bool:
    receipt = response.get("receipt") or {}
    return bool(receipt.get("leftTheSite")) and response["outcome"] == "completed"
