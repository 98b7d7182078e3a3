"""How a response with its route receipt looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from queries.terminal import Text
from waybill.cli.progress import COLOURS


def outcomes_table(rows: Iterable[tuple[int, dict[str, Any]]]) -> Table:
    """Show how each request ended; rows are the line's number and the response (or the dead letter)."""
    table = Table(
        title="How the requests ended",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=0,
        expand=True,
    )
    table.add_column("line", justify="right", no_wrap=True)
    for column in ("outcome", "class", "answered by", "left"):
        table.add_column(column, no_wrap=True)
    table.add_column("what came of it", no_wrap=True, overflow="ellipsis", ratio=1)
    for number, response in sorted(rows, key=lambda row: row[0]):
        outcome = response.get("outcome", "rejected")
        receipt = response.get("receipt") or {}
        served = receipt.get("servedBy")
        held = receipt.get("classification") or {}
        declared, effective = held.get("declared", "-"), held.get("effective", "-")
        table.add_row(
            str(number),
            Text(outcome, COLOURS.get(outcome, "")),
            effective if declared == effective else f"{declared} → {effective}",
            f"{served['name']} ({served['provider']})" if served else "-",
            ("yes" if receipt["leftTheSite"] else "no") if receipt else "-",
            _shortly(response),
        )
    return table


def _shortly(response: dict[str, Any]) -> Text:
    text = (response.get("output") or {}).get("text")
    failure = response.get("failure")
    said = " ".join(text.split()) if text else f"{failure['code']}: {failure['message']}" if failure else ""
    attempts = (response.get("receipt") or {}).get("attempts", ())
    before = f"(after {attempts[0]['outcome']} of {attempts[0]['route']['name']}) " if len(attempts) > 1 else ""
    return Text(before + said)


def receipt_panel(response: dict[str, Any]) -> RenderableType:
    """Show one response with its receipt."""
    receipt = response.get("receipt")
    outcome = response["outcome"]
    fields = _fields()
    fields.add_row("request", response["requestId"])
    fields.add_row("outcome", Text(outcome, COLOURS.get(outcome, "")))
    fields.add_row("ended", response["endedAtUtc"])
    if response.get("duplicateOf"):
        fields.add_row("duplicate of", response["duplicateOf"])
    if response.get("failure"):
        fields.add_row("failure", f"{response['failure']['code']}: {response['failure']['message']}")
    if receipt is None:
        fields.add_row("receipt", "none: the request could not be read, so that it went nowhere")
        return Panel(fields, title="Response", title_align="left", expand=False)
    _receipt(fields, receipt)
    parts: list[RenderableType] = [fields]
    if receipt.get("attempts"):
        parts.append(_attempts(receipt["attempts"]))
    if receipt.get("waybill"):
        parts.append(Panel(_waybill(receipt), title="Waybill", title_align="left", expand=False))
    if response.get("output"):
        parts.append(Panel(Text(response["output"]["text"]), title="Answer", title_align="left", expand=False))
    return Panel(Group(*parts), title="Route receipt", title_align="left", expand=False)


def other_arrivals(responses: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Say what became of other arrivals of the same request id, a line for each."""
    for one in responses:
        failure = one.get("failure")
        code = failure["code"] if failure else ""
        why = f" ({code})" if code and code != one["outcome"] else ""
        yield f"another request with this id: {one['outcome']}{why} at {one['endedAtUtc']}; it changed nothing here"


def _receipt(fields: Table, receipt: dict[str, Any]) -> None:
    asked, held, policy, served = (
        receipt["asked"],
        receipt["classification"],
        receipt["policy"],
        receipt.get("servedBy"),
    )
    fields.add_row("asked", f"{asked['taskType']} for {asked['purpose']}, placement {asked['placement']}")
    found = f", detected {held['detected']} ({', '.join(held.get('findings', ()))})" if held.get("detected") else ""
    fields.add_row("data", f"declared {held['declared']}{found}: held to be {held['effective']}")
    fields.add_row("identity", receipt["identity"])
    fields.add_row("policy", f"{policy['decision']} by {policy['policyId']} {policy['policyVersion']}")
    fields.add_row("because", ", ".join(policy.get("reasons", ())))
    consent = receipt.get("consent")
    if consent:
        fields.add_row("consent", f"{consent['basis']}, register says {consent['state']}")
    redaction = receipt.get("redaction")
    if redaction:
        fields.add_row("taken out", f"{_plain(redaction['removed'])} ({_plain(redaction['applied'])})")
    context = receipt.get("context")
    if context:
        fields.add_row("sources", f"went along {_plain(context['selected'])}; stayed {_plain(context['left'])}")
    approval = receipt.get("approval")
    if approval:
        fields.add_row("approval", f"by {approval.get('approver', '-')} as {approval['authority']}")
    if served:
        where = f"{served['placement']}, {served['region']}"
        fields.add_row("answered by", f"{served['name']}: {served['model']} of {served['provider']} ({where})")
    fields.add_row("left the site", "yes" if receipt["leftTheSite"] else "no")
    retained = receipt.get("retained")
    if retained:
        said = ", ".join(f"{key} {_plain(value)}" for key, value in retained.items())
        fields.add_row("retention", said)
    fields.add_row("cost", f"${receipt.get('costUsd', 0):.6f}")
    fields.add_row("trace", receipt["traceId"])


def _attempts(attempts: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for column in ("attempt", "route", "provider", "outcome", "ms", "tokens in/out", "intent"):
        table.add_column(column, overflow="fold")
    for attempt in attempts:
        usage, route = attempt.get("usage"), attempt["route"]
        table.add_row(
            str(attempt["attempt"]),
            route["name"],
            route["provider"],
            attempt["outcome"],
            f"{attempt['durationMs']:.1f}",
            f"{usage['inputTokens']}/{usage['outputTokens']}" if usage else "-",
            attempt.get("intentId", "none needed"),
        )
    return table


def _waybill(receipt: dict[str, Any]) -> Table:
    fields = _fields()
    for name, value in receipt["waybill"].items():
        fields.add_row(_words(name), _plain(value))
    fields.add_row("hash", receipt["waybillHash"])
    return fields


def _fields() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _words(name: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
