"""`waybill retention`: destroy what has reached its maximum, and say what is kept."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from rich.table import Table

from evidence.errors import ConfigError, UnavailableError
from waybill.cli.interrupts import listen
from waybill.cli.moments import stated
from waybill.cli.options import By, Home, Json, Kafka, out, resolve, tell, write_json

if TYPE_CHECKING:
    from policy.holds import HoldBook
    from policy.retention import Group, RetentionRules
    from policy.vault.erasure import Erasure, Step
    from policy.vault.keys import KeyInfo
    from policy.vault.sealing import Vault
    from policy.vault.store import Destruction, VaultStore
    from waybill.settings import Settings

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in evidence.")]

app = typer.Typer(help="Destroy what has reached its maximum, and say what is kept.", no_args_is_help=True)


@app.command()
def run(
    now: Annotated[
        str | None, typer.Option("--now", metavar="TIME", help="Act as of this moment (UTC, default: the clock's).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be destroyed.")] = False,  # noqa: FBT002 - a flag
    by: By = None,
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
    holds = hold_book(settings).active
    store.cover(holds)
    if dry_run:
        _print_plan(sweep.due(vault, store, moment), store.groups(moment))
        return
    if not vault.ring.folder.is_dir():
        out.print(f"there is no vault yet at {vault.ring.folder}: nothing is kept, so nothing is due")
        return
    listen()
    # Two runs at once would do the same things, and tell them twice.
    with locked(vault.ring.folder / "retention.lock"):
        swept = sweep.sweep(vault, store, now=moment, new_id=lambda: uuid4().hex, holds=holds)
        _tell(settings, store, swept.destroyed, who(by), clock)
        erased = carry_out(settings, store, moment)
    if not (swept.removed or swept.destroyed or erased):
        out.print("nothing was due: no object has reached its maximum, and no key its end")
        return
    if swept.removed or swept.destroyed:
        out.print(f"removed {swept.removed} objects and destroyed {len(swept.destroyed)} keys; evidence has each key")
    if erased:
        out.print(f"erased {erased} payloads of people who had asked for it")


@app.command()
def report(
    as_json: Json = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> None:
    """Show what the vault keeps: by tenant, period, class and purpose, how old it is, and when it has to go.

    Example: `waybill retention report --json`
    """
    settings = resolve(home=home)
    now = datetime.now(UTC)
    from policy.vault.erasure import Erasures  # noqa: PLC0415 - `--help` needs none of it

    vault, store = opened(settings)
    store.cover(hold_book(settings).active)
    groups, keys = store.groups(now), vault.ring.keys()
    pending, asked = store.destructions(), Erasures(store).open()
    if as_json:
        said = _as_json(groups, keys, pending, now) | {"erasures": [_erasure(each) for each in asked]}
        write_json(said)
        return
    out.print(_table(groups) if groups else "the vault keeps no objects")
    late = sum(group.overdue for group in groups)
    bare = {info.key for info in keys} - {group.key for group in groups}
    out.print(f"{len(keys)} keys, {len(bare)} of them without objects (they seal work records, or wait for their end)")
    if late or pending or any(info.key.due <= now and info.key in bare for info in keys):
        out.print(f"overdue: {late} objects; run `waybill retention run`")
    for each in asked:
        when = f"{each.asked:%Y-%m-%d}"
        out.print(f"erasure of {each.subject} ({each.tenant}), asked for on {when}, waits")


def opened(settings: Settings) -> tuple[Vault, VaultStore]:
    """Give the vault of a deployment and its store; nothing is made on disk."""
    from policy.vault.store import VaultStore  # noqa: PLC0415 - `--help` needs none of it

    return settings.open_vault(), VaultStore(settings.vault_folder)


def hold_book(settings: Settings) -> HoldBook:
    """Give the legal holds of a deployment; nothing is made on disk."""
    from policy.holds import HoldBook  # noqa: PLC0415 - `--help` needs none of it

    return HoldBook(settings.vault_folder / "holds")


def rules_of(settings: Settings) -> RetentionRules:
    """Give the retention rules in force.

    Raises:
        ConfigError: they, or the labels that they are about, cannot be used.
    """
    from policy import labels, retention  # noqa: PLC0415 - `--help` needs none of it

    folder = settings.policy_folder()
    made = labels.load(folder / "labels.yaml")
    return retention.load(
        folder / "retention.yaml",
        classes=made.classes,
        categories=made.config.categories,
        purposes=made.config.purposes,
    )


def carry_out(settings: Settings, store: VaultStore, now: datetime) -> int:
    """Carry out requests for erasure as far as they may be, and tell it; give how many payloads were erased.

    Raises:
        HoldError: a hold is damaged; nothing is erased.
        ConfigError: the retention rules cannot be used.
        UnavailableError: the disk does not let us, or evidence could not be written; run it again.
    """
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from policy.vault import erasure as erasing  # noqa: PLC0415 - the same
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from waybill.cli.telling import Untold, tell_once  # noqa: PLC0415 - the same

    erasures, clock = erasing.Erasures(store), datetime.now(UTC)

    def deed(kind: EventType, name: str, each: Erasure | Step, said: str) -> Deed:
        about = {"tenant_ref": each.tenant, "subject_ref": each.subject, "detail": said}
        return Deed(kind, f"erasure:{name}", each.actor, about)

    asked = [
        Untold(each.id, each.begun, each.asked, deed(EventType.ERASURE_REQUESTED, each.id, each, said))
        for each, said in ((each, erasing.requested(each)) for each in erasures.open() if not each.told)
    ]
    tell_once(settings, asked, erasures.mark_asked, clock)
    if erasures.open():
        rules, holds = rules_of(settings), hold_book(settings).active
        erasing.carry_out(erasures, now=now, new_id=lambda: uuid4().hex, holds=holds, rules=rules)
    steps = erasures.steps()
    for step in steps:
        if not step.destroyed:
            erasures.destroy(step)
    done = [
        Untold(each.id, each.begun, each.decided, deed(EventType.SUBJECT_ERASED, each.erasure, each, said))
        for each, said in ((each, erasing.detail(each)) for each in steps)
    ]
    tell_once(settings, done, erasures.mark, clock)
    return sum(step.keys for step in steps)


def who(by: str | None) -> str:
    """Give who does it, as evidence names them.

    Raises:
        ConfigError: it has another form than `kind:name`, or the login is not known.
    """
    if by is None:
        try:
            return f"user:{getpass.getuser()}"
        except (KeyError, OSError):
            raise ConfigError("your login is not known here: say who you are with --by user:NAME") from None
    kind, _, name = by.partition(":")
    if not (kind and name and by.isprintable() and len(by) <= 256):  # noqa: PLR2004 - the event's bound
        raise ConfigError(f"--by is KIND:NAME, such as user:dora, and not {by[:40]!r}")
    return by


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


def _tell(settings: Settings, store: VaultStore, done: Sequence[Destruction], actor: str, now: datetime) -> None:
    """Write evidence of what is destroyed, once."""
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from policy.vault import sweep  # noqa: PLC0415 - the same
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from waybill.cli.telling import NotTold, Untold, tell_once  # noqa: PLC0415 - the same

    def deed(each: Destruction) -> Deed:
        about = {"tenant_ref": each.tenant, "detail": sweep.detail(each)}
        return Deed(EventType.RETENTION_APPLIED, f"retention:{each.key}", actor, about)

    items = [Untold(each.id, each.begun, each.planned, deed(each)) for each in done]
    try:
        tell_once(settings, items, store.mark, now)
    except NotTold as error:
        raise UnavailableError(
            f"{error.count} keys are destroyed, but evidence of it could not be written; run "
            f"`waybill retention run` again, which writes it: {error.why}"
        ) from error


def _moment(text: str | None, clock: datetime, *, ahead: bool) -> datetime:
    if text is None:
        return clock
    moment = stated(text, "--now")
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


def _erasure(each: Erasure) -> dict[str, Any]:
    return {"erasure": each.id, "tenant": each.tenant, "subject": each.subject, "asked": each.asked, "told": each.told}
