"""`waybill policy`: which policies are in force here, and putting others in force."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError
from waybill.cli.interrupts import listen
from waybill.cli.options import By, Home, Json, Kafka, out, resolve, tell, write_json
from waybill.cli.retention import who

if TYPE_CHECKING:
    from inference.rulebook import Rulebook
    from policy.versions import Activation
    from waybill.settings import Settings

app = typer.Typer(
    help="See which policies are in force, check others, put them in force, go back.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with labels.yaml, retention.yaml and *.cedar.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in evidence.")]


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder (default: the one in force).")] = None,
    home: Home = None,
) -> None:
    """Check policies with labels, routes, retention rules and decision records; exit code 2 where something is wrong.

    Example: `waybill policy check config/policy`
    """
    settings = resolve(home=home)
    from waybill.policy_edits import edited  # noqa: PLC0415 - `--help` needs none of it

    book = _whole(settings, folder)
    facts = book.engine.policies
    out.print(
        f"{len(facts.rules)} policies, {len(book.labels.classes)} classes, {len(book.table.routes)} routes: "
        f"policy {book.policy_digest}, rulebook {book.version}",
        soft_wrap=True,
    )
    out.print(f"decision cache key: {', '.join(book.engine.reads())}", soft_wrap=True)
    if folder is None and (said := edited(settings)) is not None:
        tell(f"waybill: {said}")


@app.command()
def show(
    as_json: Json = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> None:
    """Show the policies in force: every one with its file and line, and what it rests on.

    Example: `waybill policy show`
    """
    settings = resolve(home=home)
    from waybill.offline import book_of  # noqa: PLC0415 - `--help` needs none of it

    book, active = book_of(settings), settings.policy_versions.active()
    rules = book.engine.policies.rules.values()
    if as_json:
        listed = [{"id": rule.id, "effect": "permit" if rule.permits else "forbid", "at": rule.where} for rule in rules]
        said = {
            "digest": book.policy_digest,
            "rulebook": book.version,
            "folder": str(settings.policy_folder()),
            "activated": active.activation.model_dump(mode="json") if active else None,
            "policies": listed,
        }
        write_json(said)
        return
    out.print(f"policy {book.policy_digest}, rulebook {book.version}", soft_wrap=True)
    since = f"since {active.activation.at:%Y-%m-%d %H:%M} by {active.activation.by}" if active else "as configured"
    out.print(f"{settings.policy_folder()}, {since}", soft_wrap=True)
    table = Table("policy", "effect", "rests on", "where")
    for rule in rules:
        rests = [f"without {', '.join(sorted(rule.redact))} ({rule.style})"] if rule.redact else []
        rests += [f"approval of {rule.approval}"] if rule.approval else []
        rests += [f"override of {rule.escalate}"] if rule.escalate else []
        table.add_row(rule.id, "permit" if rule.permits else "forbid", "; ".join(rests), rule.where)
    out.print(table)


@app.command()
def activate(folder: Folder, reason: Reason, by: By = None, home: Home = None, kafka: Kafka = None) -> None:
    """Put the policies of a folder in force: they are checked, copied, told in evidence, and taken up by every worker.

    The decision records must pin them first (`waybill decisions pin --all --policy DIR`). A worker takes them up within
    two seconds; requests that wait in its queues are decided by them before anything is sent.

    Example: `waybill policy activate review/policy --reason "no more than 0 days at any destination"`
    """
    settings = resolve(home=home, kafka=kafka)
    author = who(by)
    listen()
    book = _whole(settings, folder)
    _put_in_force(settings, book.policy_digest, folder, author, reason, rollback=False)


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[
        str | None, typer.Option("--to", metavar="DIGEST", help="To this version (default: the one before).")
    ] = None,
    by: By = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Go back to the version of policy that was in force before this one, or to any older one.

    Example: `waybill policy rollback --reason "denied what support needs"`
    """
    settings = resolve(home=home, kafka=kafka)
    author = who(by)
    listen()
    digest = _before(settings, to)
    folder = settings.policy_versions.folder_of(digest)
    book = _whole(settings, folder)
    _put_in_force(settings, book.policy_digest, folder, author, reason, rollback=True)


@app.command()
def history(
    as_json: Json = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> None:
    """Show which versions were put in force here, by whom, and why.

    Example: `waybill policy history`
    """
    settings = resolve(home=home)
    found = settings.policy_versions.history()
    if as_json:
        said = [one.model_dump(mode="json") for one in found]
        write_json(said)
        return
    if not found:
        out.print(f"no version was activated here; {settings.policy} is in force as configured")
        return
    table = Table("when", "policy", "by", "why")
    for one in found:
        back = "back to " if one.rollback else ""
        table.add_row(f"{one.at:%Y-%m-%d %H:%M:%S}", back + one.digest[:19] + "…", one.by, one.reason)
    out.print(table)


def _whole(settings: Settings, folder: Path | None) -> Rulebook:
    """Check a folder as a worker would when it starts."""
    from policy.placement.records import load  # noqa: PLC0415 - `--help` needs none of it
    from waybill.decision_pins import table_facts  # noqa: PLC0415 - the same
    from waybill.offline import book_of  # noqa: PLC0415 - the same

    book = book_of(settings, folder)
    records = load(settings.decisions)
    records.check(table_facts(book.table), policy_digest=book.policy_digest, today=datetime.now(UTC).date())
    return book


def _before(settings: Settings, to: str | None) -> str:
    """Give the digest to go back to."""
    versions = settings.policy_versions
    active = versions.active()
    if active is None:
        raise ConfigError("no version was activated here, so that there is none to go back to")
    past = versions.history()
    if to is not None:
        known = {one.digest for one in past} | {one.previous for one in past if one.previous}
        matching = sorted(
            digest for digest in known if digest.removeprefix("sha256:").startswith(to.removeprefix("sha256:"))
        )
        if len(matching) != 1:
            said = "no version that was in force here" if not matching else "several versions"
            raise ConfigError(f"--to {to}: {said} begins so; `waybill policy history` lists them")
        return matching[0]
    return _previous(active.activation.digest, past)


def _previous(current: str, past: tuple[Activation, ...]) -> str:
    """Give what was in force before the current version was first put in force on purpose, not by going back to it."""
    for one in reversed(past):
        if one.digest == current and not one.rollback and one.previous is not None:
            return one.previous
    raise ConfigError("no version is known that was in force before this one; name one with --to")


def _put_in_force(settings: Settings, digest: str, folder: Path, author: str, reason: str, *, rollback: bool) -> None:
    from evidence.records import EventType, PolicyRef  # noqa: PLC0415 - `--help` needs none of it
    from inference import rulebook  # noqa: PLC0415 - the same
    from policy.detection.detectors import Detectors  # noqa: PLC0415 - the same
    from policy.versions import Activation  # noqa: PLC0415 - the same
    from streams import operator  # noqa: PLC0415 - the same
    from waybill.parts import masked  # noqa: PLC0415 - the same

    versions, now = settings.policy_versions, datetime.now(UTC)
    before = rulebook.read(settings.policy_folder(), settings.routes)
    if before.policy_digest == digest:
        out.print(f"policy {digest} is in force already", soft_wrap=True)
        return
    versions.add(before.policy_digest, _files(settings.policy_folder()))
    versions.add(digest, _files(folder))
    said = masked(Detectors(), reason)[:1000]
    activation = Activation(
        digest=digest, previous=before.policy_digest, at=now, by=author, reason=said, rollback=rollback
    )
    after = rulebook.read(versions.folder_of(digest), settings.routes)
    deed = operator.Deed(
        event_type=EventType.POLICY_ACTIVATED,
        request_id=f"policy:{digest[7:39]}",
        actor_ref=author,
        fields={
            "policy": PolicyRef(
                decision="allow",
                policy_id="rulebook",
                policy_version=after.version,
                reasons=("rollback" if rollback else "activate",),
                overrides=before.version,
            ),
            "detail": orjson.dumps(
                {"digest": digest, "previous": before.policy_digest, "reason": said, "rollback": rollback}
            ).decode(),
        },
    )
    # Evidence first: what cannot be told is not done. Where the second step fails, the command is run again.
    asyncio.run(operator.tell(settings.kafka_settings(), [deed], site=settings.site, now=now))
    versions.activate(activation)
    out.print(
        f"policy {digest} is in force, in place of {before.policy_digest}; workers take it up within two seconds",
        soft_wrap=True,
    )


def _files(folder: Path) -> list[Path]:
    """Give the files of a version."""
    named = {"labels.yaml", "retention.yaml"}
    return sorted(path for path in folder.iterdir() if path.suffix == ".cedar" or path.name in named)
