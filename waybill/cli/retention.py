"""`waybill retention`: destroy what has reached its maximum, say what is kept, hold what must not go."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import uuid4

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError, RecordError, UnavailableError
from evidence.records import EventType
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, out, resolve, tell
from waybill.settings import Settings

if TYPE_CHECKING:
    from policy.retention import Group
    from policy.vault.keys import KeyInfo
    from policy.vault.sealing import Vault
    from policy.vault.store import Destruction, VaultStore

_BATCH: Final = 200
"""Events of one Kafka transaction."""
_SEARCH_S: Final = 120.0
"""Seconds that looking for evidence of an earlier run may take."""
_SLACK_MS: Final = 3_600_000
"""How far the clocks of this machine and of the broker may differ, in milliseconds."""

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in evidence.")]
Actor = Annotated[
    str | None, typer.Option("--actor", metavar="KIND:NAME", help="Who does it (default: user:<your login>).")
]

app = typer.Typer(help="Destroy what has reached its maximum, and say what is kept.", no_args_is_help=True)


@app.command()
def run(
    now: Annotated[
        str | None, typer.Option("--now", metavar="TIME", help="Act as of this moment (UTC, default: the clock's).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be destroyed.")] = False,  # noqa: FBT002 - a flag
    actor: Actor = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Destroy the keys of everything that has reached its maximum, and write evidence of each; never under legal hold.

    It may be killed at any moment and run again: nothing is done twice, and what was destroyed but not yet told is
    told. A moment that lies ahead of the clock is for `--dry-run` alone.

    Example: `waybill retention run --dry-run --now 2027-01-01T00:00:00Z`
    """
    settings = resolve(home=home, kafka=kafka)
    clock = datetime.now(UTC)
    moment = _moment(now, clock, ahead=dry_run)
    from policy.vault import sweep  # noqa: PLC0415 - `--help` needs none of it
    from policy.vault.files import locked  # noqa: PLC0415 - the same

    vault, store = opened(settings)
    if dry_run:
        _print_plan(sweep.due(vault, store, moment), store.groups(moment))
        return
    if not vault.ring.folder.is_dir():
        out.print("there is no vault yet: nothing is kept")
        return
    listen()
    # Two runs at once would do the same things, and tell them twice.
    with locked(vault.ring.folder / "retention.lock"):
        swept = sweep.sweep(vault, store, now=moment, new_id=lambda: uuid4().hex)
        _tell(settings, store, swept.destroyed, who(actor), clock)
    out.print(f"removed {swept.removed} objects and destroyed {len(swept.destroyed)} keys; evidence has each key")


@app.command()
def report(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> None:
    """Show what the vault keeps: by tenant, period, class and purpose, how old it is, and when it has to go.

    Example: `waybill retention report --json`
    """
    settings = resolve(home=home)
    now = datetime.now(UTC)
    vault, store = opened(settings)
    groups, keys = store.groups(now), vault.ring.keys()
    pending = store.destructions()
    if as_json:
        out.print(orjson.dumps(_as_json(groups, keys, pending, now), option=orjson.OPT_INDENT_2).decode(), markup=False)
        return
    out.print(_table(groups) if groups else "the vault keeps no objects")
    late = sum(group.overdue for group in groups)
    bare = {info.key for info in keys} - {group.key for group in groups}
    out.print(f"{len(keys)} keys, {len(bare)} of them without objects (they seal work records, or wait for their end)")
    if late or pending or any(info.key.due <= now and info.key in bare for info in keys):
        out.print(f"overdue: {late} objects; run `waybill retention run`")


@app.command()
def hold(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id.")],
    reason: Reason,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,  # noqa: FBT002 - a flag
    actor: Actor = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Keep everything that the vault has of a request, whatever its maximum says, until the hold is released.

    Example: `waybill retention hold 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11 --reason "case 2026-117"`
    """
    settings = resolve(home=home, kafka=kafka)
    _, store = opened(settings)
    kept = store.of_request(request_id)
    why, by = masked(reason), who(actor)
    # Whichever way the program ends between the two steps, what should be held is held.
    if not kept or (not release and not store.hold(request_id, on=True)):
        raise RecordError("nothing_kept", f"the vault keeps nothing of {request_id}: there is nothing to hold")
    listen()
    content = {"hold": "released" if release else "placed", "objects": len(kept), "reason": why}
    asyncio.run(_say(settings, request_id, by, {"tenant_ref": kept[0].tenant, "detail": _json(content)}))
    if release:
        store.hold(request_id, on=False)
    out.print(f"{len(kept)} objects of {request_id} are {'no longer' if release else 'now'} under legal hold")


def opened(settings: Settings) -> tuple[Vault, VaultStore]:
    """Give the vault of a deployment and its store; nothing is made on disk."""
    from policy.vault.store import VaultStore  # noqa: PLC0415 - `--help` needs none of it

    return settings.open_vault(), VaultStore(settings.vault_folder)


def who(actor: str | None) -> str:
    """Give who does it, as evidence names them.

    Raises:
        ConfigError: it has another form than `kind:name`, or the login is not known.
    """
    if actor is None:
        try:
            return f"user:{getpass.getuser()}"
        except (KeyError, OSError):
            raise ConfigError("your login is not known here: say who you are with --actor user:NAME") from None
    kind, _, name = actor.partition(":")
    if not (kind and name and actor.isprintable() and len(actor) <= 256):  # noqa: PLR2004 - the event's bound
        raise ConfigError(f"--actor is KIND:NAME, such as user:dora, and not {actor[:40]!r}")
    return actor


def masked(text: str) -> str:
    """Give what a person wrote for evidence: what detectors find is masked, and the end of a long text left out.

    Raises:
        ConfigError: it is empty.
    """
    from policy.detection.detectors import Detectors  # noqa: PLC0415 - `--help` needs none of it
    from policy.redaction import mask  # noqa: PLC0415 - the same

    if not text.strip():
        raise ConfigError("--reason is empty: say why, for those who read the evidence")
    return mask(text, Detectors().scan(text))[:512]


async def _say(settings: Settings, request_id: str, actor: str, fields: Mapping[str, Any]) -> None:
    from streams.operator import Deed  # noqa: PLC0415 - `--help` needs none of it
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    deed = Deed(EventType.RETENTION_APPLIED, request_id, actor, fields)
    await say(settings.kafka_settings(), (deed,), site=settings.site, now=datetime.now(UTC))


def _tell(settings: Settings, store: VaultStore, done: Sequence[Destruction], actor: str, now: datetime) -> None:
    """Write evidence of what is destroyed, once: what an earlier run may have written is looked for first."""
    from policy.vault import sweep  # noqa: PLC0415 - `--help` needs none of it
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    unsure = [each for each in done if each.begun]
    written = asyncio.run(_written(settings, unsure)) if unsure else set()
    store.mark([*written], "told")
    left = [each for each in done if each.id not in written]
    for start in range(0, len(left), _BATCH):
        batch = left[start : start + _BATCH]
        deeds = [
            Deed(
                EventType.RETENTION_APPLIED,
                f"retention:{each.key}",
                actor,
                {"tenant_ref": each.tenant, "detail": sweep.detail(each)},
            )
            for each in batch
        ]
        names = [each.id for each in batch]
        fresh = chain(names, iter(lambda: uuid4().hex, None))  # an event's intake is the id of its destruction
        store.mark(names, "begun")
        try:
            asyncio.run(say(settings.kafka_settings(), deeds, site=settings.site, now=now, fresh=fresh.__next__))
        except UnavailableError as error:
            raise UnavailableError(
                f"{len(left) - start} keys are destroyed, but evidence of it could not be written; run "
                f"`waybill retention run` again, which writes it: {error}"
            ) from error
        store.mark(names, "told")


async def _written(settings: Settings, unsure: Sequence[Destruction]) -> set[str]:
    """Give those destructions that `ai.evidence` has already."""
    from streams.topics import EVIDENCE  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.traffic import tail  # noqa: PLC0415 - the same

    wanted = {each.id for each in unsure}
    since = int(min(each.planned for each in unsure).timestamp() * 1000) - _SLACK_MS
    reader = await tail(settings.kafka_settings(), (EVIDENCE,))
    found: set[str] = set()
    try:
        async with asyncio.timeout(_SEARCH_S):
            partitions = list(reader.assignment())
            ends = await reader.end_offsets(partitions)
            starts = await reader.offsets_for_times(dict.fromkeys(partitions, since))
            for partition in partitions:
                place = starts.get(partition)
                reader.seek(partition, place.offset if place else ends[partition])
            open_ = {each for each in partitions if await reader.position(each) < ends[each]}
            while open_:
                batch = await reader.getmany(*open_, timeout_ms=500)
                for record in (record for records in batch.values() for record in records):
                    if EventType.RETENTION_APPLIED.encode() in record.value:
                        found.add(orjson.loads(record.value)["intakeId"])
                open_ = {each for each in open_ if await reader.position(each) < ends[each]}
    except TimeoutError:
        raise UnavailableError(
            f"the evidence at {settings.kafka} could not be looked through within {_SEARCH_S:g} s: run it again"
        ) from None
    finally:
        await reader.stop()
    return wanted & found


def _moment(text: str | None, clock: datetime, *, ahead: bool) -> datetime:
    if text is None:
        return clock
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--now is a moment such as 2027-01-01T00:00:00Z, and not {text[:40]!r}") from None
    if moment.tzinfo is None:
        raise ConfigError(f"--now needs a time zone: write {text}Z for UTC")
    if moment > clock and not ahead:
        raise ConfigError(
            "--now lies ahead of the clock: what must be kept until then would be destroyed now; look with --dry-run"
        )
    return moment.astimezone(UTC)


def _print_plan(keys: Sequence[KeyInfo], groups: Sequence[Group]) -> None:
    late = sum(group.overdue for group in groups)
    held = sum(group.held for group in groups)
    if keys:
        table = Table("tenant", "period", "term", "due since")
        for info in keys:
            table.add_row(info.tenant, info.key.period, info.key.bucket, f"{info.key.due:%Y-%m-%d}")
        out.print(table)
    out.print(f"would remove {late} objects and destroy {len(keys)} keys; {held} objects are under legal hold")
    tell("waybill: nothing was changed (--dry-run)")


def _table(groups: Sequence[Group]) -> Table:
    table = Table("tenant", "period", "class", "purpose", "kind", "objects", "held", "oldest", "expires", "overdue")
    for group in groups:
        span = f"{group.first_expiry:%Y-%m-%d} … {group.last_expiry:%Y-%m-%d}"
        counts = str(group.objects), str(group.held or ""), f"{group.oldest:%Y-%m-%d}", span, str(group.overdue or "")
        table.add_row(group.tenant, group.key.period, group.data_class, group.purpose, group.kind, *counts)
    return table


def _as_json(
    groups: Sequence[Group], keys: Sequence[KeyInfo], pending: Sequence[Destruction], now: datetime
) -> dict[str, Any]:
    return {
        "at": now,
        "objects": [
            {
                "tenant": group.tenant,
                "period": group.key.period,
                "term": group.key.bucket,
                "class": group.data_class,
                "purpose": group.purpose,
                "kind": group.kind,
                "objects": group.objects,
                "held": group.held,
                "oldest": group.oldest,
                "firstExpiry": group.first_expiry,
                "lastExpiry": group.last_expiry,
                "overdue": group.overdue,
            }
            for group in groups
        ],
        "keys": [
            {"tenant": info.tenant, "period": info.key.period, "term": info.key.bucket, "due": info.key.due}
            for info in keys
        ],
        "untold": [each.id for each in pending],
    }


def _json(content: Mapping[str, Any]) -> str:
    return orjson.dumps(content).decode()
