"""`waybill vault`: the master key of what is kept."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from evidence.errors import ConfigError, UnavailableError
from waybill.cli.interrupts import listen
from waybill.cli.options import By, Home, Kafka, err, out, resolve, tell
from waybill.cli.retention import Reason, masked, who

if TYPE_CHECKING:
    from policy.vault.keys import KeyRing
    from policy.vault.rotation import Plan
    from waybill.settings import Settings

app = typer.Typer(help="Manage the vault's master key.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Manage the vault's master key."""


@app.command("rotate-key")
def rotate_key(
    reason: Reason,
    new_key: Annotated[
        Path | None,
        typer.Option("--new-key", metavar="FILE", help="File that holds the new master key (default: one is made)."),
    ] = None,
    keep_old: Annotated[
        Path | None,
        typer.Option("--keep-old", metavar="FILE", help="Keep the old master key in this file, for old backups."),
    ] = None,
    leave_old: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--leave-old", help="Leave the old key in the master key's file; you take it out yourself.")
    ] = False,
    new_hashes: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--new-hashes", help="Make a new key for keyed hashes too: same values, other hashes.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,  # noqa: FBT002 - a flag
    by: By = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Put the vault's data keys under a new master key, beside running workers, and destroy the old one.

    It may be killed at any moment and run again, which goes on there; meanwhile everything can be read. Evidence has it
    before anything is changed, and before the old key is destroyed. Where the key's file cannot be replaced (a mounted
    secret), put the new key as a line above the old one in it, and run this with `--leave-old`.

    Example: `waybill vault rotate-key --reason "once a year" --dry-run`
    """
    settings = resolve(home=home, kafka=kafka)
    actor, why = who(by), masked(reason)
    if keep_old is not None and leave_old:
        raise ConfigError("--keep-old and --leave-old each say where the old key stays: give one of them")
    from policy.vault import rotation  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.progress import counting  # noqa: PLC0415 - the same

    ring = settings.open_vault().ring
    with rotation.exclusive(ring):
        if dry_run:
            _print_plan(rotation.plan(ring, _given(new_key)))
            return
        listen()
        if rotation.complete(ring):
            out.print("the rotation before is complete now: the bytes of its old key are destroyed")
            return
        plan = rotation.plan(ring, _given(new_key))
        if keep_old is not None:
            rotation.keep(ring, keep_old, plan.old)
        old = "left in the file" if leave_old else "kept" if keep_old is not None else "destroyed"
        said = {"new": plan.new_id, "old": list(plan.old_ids), "oldKey": old, "newHashes": new_hashes, "reason": why}
        _say(settings, actor, {"step": "resumed" if plan.begun else "begun", **said})
        rotation.begin(ring, plan)
        with counting(err) as progress:
            task = progress.add_task("wrapping keys", total=plan.keys)
            rotation.rewrap(ring, new_hashes=new_hashes, done=lambda: progress.advance(task))
        _end(settings, ring, actor, {"step": "done", "keys": plan.keys, **said}, leave=leave_old)
    out.print(f"{plan.keys} data keys are under the master key {plan.new_id}; the old one is {old}", soft_wrap=True)


def _end(settings: Settings, ring: KeyRing, actor: str, said: dict[str, Any], *, leave: bool) -> None:
    from policy.vault import rotation  # noqa: PLC0415 - `--help` needs none of it

    try:
        _say(settings, actor, said)
    except UnavailableError:
        tell(
            f"waybill: every data key is under the new master key; {ring.key_file} still holds the old one too, "
            "because evidence of it could not be written: run it again, which goes on there"
        )
        raise
    if not leave:
        rotation.finish(ring)


def _given(file: Path | None) -> bytes | None:
    """Read the new key.

    Raises:
        ConfigError: the file holds no single key.
    """
    if file is None:
        return None
    from policy.vault import master  # noqa: PLC0415 - `--help` needs none of it

    try:
        keys = master.read(file).keys
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    if len(keys) != 1:
        raise ConfigError(f"{file} holds {len(keys)} keys: --new-key names a file that holds the new one alone")
    return keys[0]


def _print_plan(plan: Plan) -> None:
    state = "a rotation was begun and goes on" if plan.begun else "a rotation would begin"
    new = plan.new_id if plan.begun else "a new one"
    out.print(f"{state}: from master key {', '.join(plan.old_ids)} to {new}", soft_wrap=True)
    out.print(f"would wrap {plan.left} of {plan.keys} data keys anew")
    tell("waybill: nothing was changed (--dry-run)")


def _say(settings: Settings, actor: str, content: dict[str, Any]) -> None:
    """Write evidence; it is durable when this returns."""
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    deed = Deed(EventType.VAULT_REKEYED, "vault", actor, {"detail": orjson.dumps(content).decode()})
    asyncio.run(say(settings.kafka_settings(), (deed,), site=settings.site, now=datetime.now(UTC)))
