"""`waybill consent`: what people allow, by subject and purpose."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError, RecordError
from evidence.faults import faults
from waybill.cli.interrupts import listen
from waybill.cli.moments import stated
from waybill.cli.options import By, Home, Json, Kafka, out, resolve, write_json
from waybill.cli.retention import who

if TYPE_CHECKING:
    from streams.consent import ConsentEntry, ConsentTable, Scope
    from waybill.settings import Settings

app = typer.Typer(help="Say and see what people allow, by subject and purpose.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option("--tenant", metavar="ID", help="For which tenant.")]
Subject = Annotated[
    str, typer.Option("--subject", metavar="REF", help="Whom the data is about: a reference, never a name.")
]
Purpose = Annotated[str, typer.Option("--purpose", metavar="NAME", help="What the data may be used for.")]
Reference = Annotated[
    str | None, typer.Option("--reference", metavar="TEXT", help="Where the person said so: a form, a ticket.")
]
_COLUMNS: Final = ("tenant", "subject", "purpose", "state", "until", "recorded", "by", "reference", "revision")

Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Time limit of the reading.")]


@app.command()
def grant(
    tenant: Tenant,
    subject: Subject,
    purpose: Purpose,
    reference: Reference = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="Until when it holds, such as 2027-01-01T00:00:00Z.")
    ] = None,
    by: By = None,
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Write down that a person consents to one purpose; entry and evidence are one transaction.

    Example: `waybill consent grant --tenant acme --subject customer-17 --purpose support --reference "form 7"`
    """
    settings = resolve(home=home, kafka=kafka)
    now = datetime.now(UTC)
    until = _moment(expires, now)
    entry = _entry(tenant, subject, purpose, "granted", reference=reference, expires=until, by=by, now=now)
    listen()
    held = asyncio.run(_table(settings, timeout)).held.get(entry.scope._replace(purpose="*"))
    if held is not None:
        raise RecordError(
            "all_withdrawn",
            f"{subject} has withdrawn everything, which stands above any grant; if they begin anew, run "
            f"`waybill consent forget --tenant {tenant} --subject {subject} --purpose '*'` first",
        )
    _change(settings, entry)


@app.command()
def withdraw(
    tenant: Tenant,
    subject: Subject,
    purpose: Annotated[str, typer.Option("--purpose", metavar="NAME", help="What for; `*` withdraws every purpose.")],
    reference: Reference = None,
    by: By = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Write down that a person withdraws consent; requests that wait in a queue are held to it too.

    Example: `waybill consent withdraw --tenant acme --subject customer-17 --purpose '*'`
    """
    settings = resolve(home=home, kafka=kafka)
    now = datetime.now(UTC)
    entry = _entry(tenant, subject, purpose, "withdrawn", reference=reference, expires=None, by=by, now=now)
    listen()
    _change(settings, entry)


@app.command()
def forget(
    tenant: Tenant,
    subject: Subject,
    purpose: Annotated[str, typer.Option("--purpose", metavar="NAME", help="What for; `*` forgets every entry.")],
    by: By = None,
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Erase what is known of a subject's consent; from then on nobody has said anything, which is no consent.

    Example: `waybill consent forget --tenant acme --subject customer-17 --purpose '*'`
    """
    settings = resolve(home=home, kafka=kafka)
    author = who(by)
    from streams import consent_changes  # noqa: PLC0415 - `--help` needs none of it

    listen()
    found = asyncio.run(_table(settings, timeout))
    scopes = [
        scope
        for scope in sorted(found.held)
        if (scope.tenant, scope.subject) == (tenant, subject) and purpose in {"*", scope.purpose}
    ]
    if not scopes:
        raise RecordError(
            "nothing_known", f"nothing is known of {tenant}, {subject}, {purpose}: there is nothing to forget"
        )
    changes = asyncio.run(
        consent_changes.forget(settings.kafka_settings(), scopes, by=author, site=settings.site, now=datetime.now(UTC))
    )
    for change in changes:
        _told(change.scope, "forgotten", change.revision)


@app.command()
def show(
    tenant: Tenant,
    subject: Subject,
    purpose: Purpose,
    as_json: Json = False,  # noqa: FBT002 - a flag
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Show what holds for one subject and purpose now; exit code 1 where that is not `granted`.

    Example: `waybill consent show --tenant acme --subject customer-17 --purpose support`
    """
    settings = resolve(home=home, kafka=kafka)
    listen()
    found = asyncio.run(_table(settings, timeout))
    answer = found.state(tenant, subject, purpose, datetime.now(UTC))
    held = found.held.get(_scope(tenant, subject, "*")) or found.held.get(_scope(tenant, subject, purpose))
    entry = held.entry if held is not None else None
    if as_json:
        said: dict[str, Any] = {"state": answer.state, "revision": answer.revision}
        said["entry"] = orjson.loads(entry.to_json()) if entry is not None else None
        write_json(said)
    else:
        place = f" at {answer.revision}" if answer.revision else ""
        out.print(f"{answer.state}{place}")
        if entry is not None:
            out.print(_sentence(entry), soft_wrap=True)
    return 0 if answer.state == "granted" else 1


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Of this tenant alone.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="REF", help="Of this subject alone.")] = None,
    purpose: Annotated[str | None, typer.Option("--purpose", metavar="NAME", help="For this purpose alone.")] = None,
    as_json: Json = False,  # noqa: FBT002 - a flag
    timeout: Timeout = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """List what is known now, and how many records could not be read.

    Example: `waybill consent list --tenant acme`
    """
    settings = resolve(home=home, kafka=kafka)
    listen()
    found = asyncio.run(_table(settings, timeout))
    now = datetime.now(UTC)
    rows = []
    for scope, held in sorted(found.held.items()):
        if any(want is not None and want != have for want, have in zip((tenant, subject, purpose), scope, strict=True)):
            continue
        state = held.answer.state
        if held.expires_at is not None and held.expires_at <= now:
            state = "none"
        entry = held.entry
        told = (
            [_time(entry.expires_at_utc), _time(entry.recorded_at_utc), entry.recorded_by, entry.reference or ""]
            if entry is not None
            else [""] * 4
        )
        rows.append((*scope, state, *told, held.answer.revision or ""))
    if as_json:
        write_json({"bad": found.bad, "consent": [dict(zip(_COLUMNS, row, strict=True)) for row in rows]})
        return
    table = Table(*_COLUMNS)
    for row in rows:
        table.add_row(*row)
    out.print(table)
    if found.bad:
        out.print(f"{found.bad} records could not be read; what they are about counts as unknown")


def _scope(tenant: str, subject: str, purpose: str) -> Scope:
    from streams.consent import Scope  # noqa: PLC0415 - `--help` needs none of it

    return Scope(tenant, subject, purpose)


def _entry(
    tenant: str,
    subject: str,
    purpose: str,
    state: Literal["granted", "withdrawn"],
    *,
    reference: str | None,
    expires: datetime | None,
    by: str | None,
    now: datetime,
) -> ConsentEntry:
    from pydantic import ValidationError  # noqa: PLC0415 - `--help` needs none of it

    from streams.consent import ConsentEntry  # noqa: PLC0415 - the same

    try:
        return ConsentEntry(
            tenant=tenant,
            subject=subject,
            purpose=purpose,
            state=state,
            reference=reference,
            recorded_at_utc=now,
            recorded_by=who(by),
            expires_at_utc=expires,
        )
    except ValidationError as error:
        first = faults(error, ConsentEntry)[0]
        where = f"--{first.place[0]}: " if first.place else ""
        raise ConfigError(f"{where}{first.text}") from None


def _moment(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    moment = stated(text, "--expires")
    if moment <= now:
        raise ConfigError("--expires lies in the past: such a grant would hold nothing")
    return moment


def _change(settings: Settings, entry: ConsentEntry) -> None:
    from streams import consent_changes  # noqa: PLC0415 - `--help` needs none of it

    change = asyncio.run(consent_changes.record(settings.kafka_settings(), entry, site=settings.site))
    _told(entry.scope, entry.state, change.revision)


def _told(scope: Scope, state: str, revision: str) -> None:
    out.print(f"{state}: {scope.subject} of {scope.tenant} for {scope.purpose}, revision {revision}")


async def _table(settings: Settings, timeout_s: float) -> ConsentTable:
    from streams.consent import ConsentTable  # noqa: PLC0415 - `--help` needs none of it
    from streams.topics import CONSENT  # noqa: PLC0415 - the same
    from waybill.cli.reading import read_through  # noqa: PLC0415 - the same

    found = ConsentTable()
    await read_through(
        settings.kafka_settings(),
        CONSENT,
        lambda record: found.take(record.key, record.value, record.partition, record.offset),
        timeout_s,
    )
    return found


def _sentence(entry: ConsentEntry) -> str:
    told = f"{entry.state} for {entry.purpose}, recorded {_time(entry.recorded_at_utc)} by {entry.recorded_by}"
    if entry.reference is not None:
        told += f", reference {entry.reference}"
    return told + (f", until {_time(entry.expires_at_utc)}" if entry.expires_at_utc is not None else "")


def _time(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z") if moment is not None else ""
