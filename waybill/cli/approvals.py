"""`waybill approvals`: what waits for a person, and the answer. Labels and reasons are shown, never content."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError, RecordError
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Json, Kafka, out, resolve, tell, write_json
from waybill.cli.retention import masked, who
from waybill.cli.tokens import read_token

if TYPE_CHECKING:
    from streams.approvals import ApprovalVerdict
    from waybill.cli.answering import Item
    from waybill.settings import Settings

app = typer.Typer(help="See what waits for a person, and answer it.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The approval's id or the beginning of it, or the request's id.")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; what detectors find in it is masked.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="KIND:NAME",
        help="Who answers (default: the token's `sub`, or user:NAME, with the name you logged in by).",
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help="A role that you have; a token from --token-file says it itself."),
]
Token = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="A file that holds your signed token.")
]
Wait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait until the answer is taken.")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Time limit of reading the topic.")]

_PREFIX: Final = 4
"""Characters of an id from which on its beginning is enough."""

_HIDDEN: Final = frozenset({"work", "receipt", "workKey", "traceState", "record"})
"""Fields that hold content, sealed or not, or say nothing to a person."""


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Those that are closed, too.")] = False,  # noqa: FBT002 - a flag
    as_json: Json = False,  # noqa: FBT002 - a flag
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """List what waits for a person: labels, route and whose approval is needed.

    Example: `waybill approvals list`
    """
    settings = resolve(home=home, kafka=kafka)
    now = datetime.now(UTC)
    listen()
    items = [item for item in _items(settings, timeout) if every or item.waits(now)]
    if as_json:
        write_json([_json(item, now) for item in items])
        return
    if not items:
        out.print("no request is waiting for approval")
        return
    table = Table("id", "request", "needs", "class", "route", "purpose", "asked by", "until", "state")
    for item in items:
        request = item.request
        needs = f"{request.authority}{' (override)' if request.kind == 'override' else ''}"
        labels = request.data_class, request.route, request.purpose, f"{request.actor_ref} of {request.tenant}"
        row = request.approval_id, request.request_id, needs, *labels, _time(request.expires_at), item.state(now)
        table.add_row(*row)
    out.print(table)


@app.command()
def show(
    approval_id: Id,
    as_json: Json = False,  # noqa: FBT002 - a flag
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Show one request that waits or waited: what would cross, where to, why a person is asked, what was answered.

    Example: `waybill approvals show 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11`
    """
    settings = resolve(home=home, kafka=kafka)
    listen()
    now = datetime.now(UTC)
    item = _chosen(_items(settings, timeout), approval_id)
    if as_json:
        write_json(_json(item, now))
    else:
        out.print(_sheet(item, now))


@app.command()
def approve(
    approval_id: Id,
    note: Note,
    override: Annotated[bool, typer.Option("--override", help="Approve although policy escalates it.")] = False,  # noqa: FBT002 - a flag
    by: By = None,
    role: Roles = None,
    token_file: Token = None,
    wait: Wait = 10.0,
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Approve a request, so that it goes on. The approval covers the payload whose hash is shown, and no other.

    You need the role that it asks for, and cannot approve your own request.

    Example: `waybill approvals approve 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11 --note "ticket 12" --role data-steward`
    """
    settings = resolve(home=home, kafka=kafka)
    return _answer(
        settings, approval_id, "approved", note, by, role, token_file, override=override, wait=wait, timeout=timeout
    )


@app.command()
def deny(
    approval_id: Id,
    note: Note,
    by: By = None,
    role: Roles = None,
    token_file: Token = None,
    wait: Wait = 10.0,
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Refuse a request: it ends, and its sender reads the note.

    Example: `waybill approvals deny 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11 --note "not this one" --role data-steward`
    """
    settings = resolve(home=home, kafka=kafka)
    return _answer(
        settings, approval_id, "denied", note, by, role, token_file, override=False, wait=wait, timeout=timeout
    )


def _answer(
    settings: Settings,
    approval_id: str,
    verdict: Literal["approved", "denied"],
    note: str,
    by: str | None,
    roles: list[str] | None,
    token_file: Path | None,
    *,
    override: bool,
    wait: float,
    timeout: float,
) -> int:
    if not note.strip():
        raise ConfigError("--note is empty: say why, for those who read the evidence")
    told, (token, holder) = masked(note), read_token(token_file)
    approver = holder if by is None and holder is not None else who(by)
    from streams.approvals import Ruling, judge, unsigned  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.answering import send  # noqa: PLC0415 - the same

    listen()
    now = datetime.now(UTC)
    item = _chosen(_items(settings, timeout), approval_id)
    if not item.waits(now):
        raise RecordError("not_waiting", f"{item.request.request_id} waits no longer: it is {item.state(now)}")
    if verdict == "approved" and item.request.kind == "override" and not override:
        raise ConfigError("policy escalates this request: to approve it is to decide against policy; add --override")
    said = _verdict(item, verdict, told, approver, roles or [], override=override, now=now)
    if token is None:
        # What the stage would refuse is refused here, while the person still looks.
        judgement = judge(item.request, said, unsigned((), said), now)
        if judgement.ruling is Ruling.VOID:
            raise RecordError(judgement.code, judgement.message)
    out.print(_sheet(item, now))
    out.print(f"{verdict} is bound to the payload {said.payload_sha256}", soft_wrap=True)
    end = asyncio.run(send(settings.kafka_settings(), item.request, said, token, site=settings.site, wait_s=wait))
    if end is None:
        tell(
            f"waybill: the answer lies on ai.approvals and was not taken within {wait:g} s; it counts as soon as a "
            "worker runs the stage approvals"
        )
        return 0
    if end.result != verdict:
        tell(f"waybill: it was {end.result} before{f' by {end.approver}' if end.approver else ''}, and that stands")
        return 1
    goes = "goes on" if verdict == "approved" else "has ended"
    out.print(f"{item.request.request_id} {goes}; evidence {end.event_id}")
    return 0


def _verdict(
    item: Item,
    verdict: Literal["approved", "denied"],
    note: str,
    approver: str,
    roles: list[str],
    *,
    override: bool,
    now: datetime,
) -> ApprovalVerdict:
    from pydantic import ValidationError  # noqa: PLC0415 - `--help` needs none of it

    from streams.approvals import ApprovalVerdict  # noqa: PLC0415 - the same

    try:
        return ApprovalVerdict(
            approval_id=item.request.approval_id,
            verdict=verdict,
            override=override,
            approver=approver,
            roles=tuple(roles),
            note=note,
            payload_sha256=item.request.payload_sha256,
            decided_at_utc=now,
        )
    except ValidationError as error:
        wrong = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors(include_input=False)}))
        raise ConfigError(f"this cannot be an answer: {wrong}") from None


def _items(settings: Settings, timeout_s: float) -> list[Item]:
    from waybill.cli.answering import items  # noqa: PLC0415 - `--help` needs none of it

    found, bad = asyncio.run(items(settings.kafka_settings(), timeout_s))
    if bad:
        tell(f"waybill: {bad} records on ai.approvals cannot be read; they are among the dead letters")
    return found


def _chosen(items: list[Item], wanted: str) -> Item:
    found = [item for item in items if wanted in {item.request.approval_id, item.request.request_id}]
    if not found and len(wanted) >= _PREFIX:
        found = [item for item in items if item.request.approval_id.startswith(wanted)]
    if not found:
        raise RecordError(
            "unknown_approval", f"No approval found for {wanted}; `waybill approvals list --all` shows every one"
        )
    if len(found) > 1:
        told = ", ".join(item.request.approval_id for item in found)
        raise ConfigError(f"{wanted} means {len(found)} approvals; say which: {told}")
    return found[0]


def _json(item: Item, now: datetime) -> dict[str, Any]:
    shown = {name: value for name, value in orjson.loads(item.request.to_json()).items() if name not in _HIDDEN}
    shown["state"] = item.state(now)
    if item.closed is not None:
        shown["closed"] = orjson.loads(item.closed.to_json())
    return shown


def _sheet(item: Item, now: datetime) -> Table:
    request = item.request
    told = {
        "approval": request.approval_id,
        "request": request.request_id,
        "state": item.state(now),
        "needs": f"{request.authority}, to override a decision" if request.kind == "override" else request.authority,
        "asked by": f"{request.actor_ref} of {request.tenant} ({request.identity})",
        "about": request.subject_ref or "",
        "task": request.task_type,
        "purpose": request.purpose,
        "class": request.data_class,
        "found in it": ", ".join(request.findings) or "nothing",
        "taken out first": ", ".join(request.redaction) or "nothing",
        "action": f"{request.action} {request.resource}",
        "route": request.route,
        "reasons": ", ".join(request.reasons),
        "policy": f"{request.policy_id} {request.policy_version[:16]}",
        "payload": request.payload_sha256,
        "until": _time(request.expires_at),
    }
    if item.closed is not None:
        by = f" by {item.closed.approver}" if item.closed.approver else ""
        told["closed"] = f"{_time(item.closed.closed_at_utc)}{by}, evidence {item.closed.event_id}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in told.items():
        if value:
            table.add_row(name, value)
    return table


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
