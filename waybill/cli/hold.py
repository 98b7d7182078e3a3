"""`waybill hold`: what must be kept whatever retention says, until somebody releases it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError, UnavailableError
from waybill.cli.interrupts import listen
from waybill.cli.options import By, Home, Json, Kafka, out, resolve, tell, write_json
from waybill.cli.retention import Reason, hold_book, masked, opened, who

if TYPE_CHECKING:
    from evidence.records import EventType
    from policy.holds import Hold
    from waybill.settings import Settings

app = typer.Typer(help="Keep what a court or an inquiry needs, whatever retention says.", no_args_is_help=True)


@app.command()
def place(
    reason: Reason,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="REF", help="Everything about this person: a reference.")
    ] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Everything of this tenant.")] = None,
    request: Annotated[
        str | None, typer.Option("--request", metavar="REQUEST_ID", help="Everything of this request.")
    ] = None,
    by: By = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Place a legal hold on a person, a tenant or a request. Combine options to narrow it.

    Retention and erasure leave alone what a hold covers (payloads, their keys, rows of evidence), also what comes
    later. A hold is in force even where evidence of it cannot be written.

    Example: `waybill hold place --subject person:7 --tenant acme --reason "case 2026-117"`
    """
    settings = resolve(home=home, kafka=kafka)
    from policy.holds import Hold  # noqa: PLC0415 - `--help` needs none of it

    for option, value in (("--subject", subject), ("--tenant", tenant), ("--request", request)):
        if value is not None and not (value.strip() and len(value) <= 256):  # noqa: PLR2004 - the event's bound
            raise ConfigError(f"{option} is empty or longer than 256 characters")
    if subject is None and tenant is None and request is None:
        raise ConfigError("say what to hold: --subject, --tenant or --request")
    actor, why = who(by), masked(reason)
    hold = Hold(
        id=uuid4().hex[:12], subject=subject, tenant=tenant, request=request, reason=why, by=actor, at=datetime.now(UTC)
    )
    listen()
    book = hold_book(settings)
    book.place(hold)
    _, store = opened(settings)
    store.cover(book.active)
    kept = store.count(hold)
    _tell_placed(settings)
    out.print(
        f"hold {hold.id} is in force: {hold.scope}; it covers {kept} {'payload' if kept == 1 else 'payloads'} now",
        soft_wrap=True,
    )


@app.command("list")
def show(
    everything: Annotated[bool, typer.Option("--all", help="Show those too that were released.")] = False,  # noqa: FBT002 - a flag
    as_json: Json = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> None:
    """Show the legal holds in force: what each covers, who placed it, when and why.

    Example: `waybill hold list --all`
    """
    settings = resolve(home=home)
    holds = [hold for hold in hold_book(settings).all() if everything or hold.released is None]
    if as_json:
        said = [hold.model_dump(mode="json", exclude_none=True) for hold in holds]
        write_json(said)
        return
    if not holds:
        out.print("there are no legal holds")
        return
    table = Table("hold", "covers", "since", "by", "reason", "released")
    for hold in holds:
        ended = "" if hold.released is None else f"{hold.released.at:%Y-%m-%d} by {hold.released.by}"
        table.add_row(hold.id, hold.scope, f"{hold.at:%Y-%m-%d}", hold.by, hold.reason, ended)
    out.print(table)


@app.command()
def release(
    identity: Annotated[str, typer.Argument(metavar="HOLD_ID", help="The hold's id.")],
    reason: Reason,
    by: By = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """End a legal hold. What it kept past its maximum goes with the next `waybill retention run`.

    Where evidence of it cannot be written, it stays in force.

    Example: `waybill hold release 3f2a91c04b7d --reason "the case is closed"`
    """
    settings = resolve(home=home, kafka=kafka)
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from policy.holds import Release  # noqa: PLC0415 - the same

    actor, why = who(by), masked(reason)
    book = hold_book(settings)
    hold = book.find(identity)
    if hold.released is not None:
        out.print(f"hold {hold.id} was released on {hold.released.at:%Y-%m-%d} by {hold.released.by}")
        return
    listen()
    _tell_placed(settings)
    ending = Release(at=datetime.now(UTC), by=actor, reason=why)
    asyncio.run(_say(settings, EventType.HOLD_RELEASED, hold, actor, {"hold": hold.id, "reason": why}))
    book.release(hold.id, ending)
    _, store = opened(settings)
    store.cover(book.active)
    out.print(f"hold {hold.id} is released: {hold.scope}", soft_wrap=True)


def _tell_placed(settings: Settings) -> None:
    """Write evidence of every hold that evidence does not have yet."""
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it

    book = hold_book(settings)
    for hold in book.all():
        if hold.told:
            continue
        content = {"hold": hold.id, "covers": hold.scope[:900], "reason": hold.reason}
        try:
            asyncio.run(_say(settings, EventType.HOLD_PLACED, hold, hold.by, content))
        except UnavailableError:
            tell(
                f"waybill: hold {hold.id} is in force, but evidence does not say so; the next `waybill hold` writes it"
            )
            raise
        book.told(hold)


async def _say(settings: Settings, kind: EventType, hold: Hold, actor: str, content: dict[str, Any]) -> None:
    from streams.operator import Deed  # noqa: PLC0415 - `--help` needs none of it
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    refs = {"tenant_ref": hold.tenant, "subject_ref": hold.subject}
    fields: dict[str, Any] = {name: value for name, value in refs.items() if value is not None}
    fields["detail"] = orjson.dumps(content).decode()
    deed = Deed(kind, hold.request or f"hold:{hold.id}", actor, fields)
    await say(settings.kafka_settings(), (deed,), site=settings.site, now=datetime.now(UTC))
