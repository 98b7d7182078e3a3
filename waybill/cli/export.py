"""`waybill export`: a minimised copy of this site's evidence for another site, once evidence says that it is made."""

from __future__ import annotations

import asyncio
import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError
from evidence.hosts import is_this_machine
from waybill.cli.federated import SitesFile, read_sites
from waybill.cli.interrupts import listen
from waybill.cli.options import By, Home, Kafka, out, resolve
from waybill.cli.retention import who

if TYPE_CHECKING:
    from evidence.federation.export import Exporter, Plan
    from evidence.log.keys import KeyRing
    from policy.export_terms import ExportWaybill
    from policy.labels import Encryption, Labels
    from policy.sites import Grant
    from waybill.settings import Settings

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def export(
    to: Annotated[str, typer.Option("--to", metavar="SITE", help="The site that the copy is for.")],
    dest: Annotated[
        str | None, typer.Option("--dest", metavar="DIR|s3://…", help="Where the copy is, if not where the sites say.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="Only events of this class; may be repeated.")
    ] = None,
    purposes: Annotated[
        list[str] | None,
        typer.Option("--purpose", metavar="PURPOSE", help="Only events with this purpose; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would leave.")] = False,  # noqa: FBT002 - a flag
    by: By = None,
    sites: SitesFile = None,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Make or continue the copy of this site's evidence for another site: what may go there, and nothing else.

    It goes on where the last export ended, and may be killed at any moment. The export waybill is checked against the
    sites before anything is written, and evidence says what leaves before it does.

    Example: `waybill export --to hq --dry-run`
    """
    settings = resolve(home=home, kafka=kafka)
    actor, now = who(by), datetime.now(UTC)
    from evidence.federation.columns import PATHS  # noqa: PLC0415 - `--help` needs none of it
    from evidence.log.keys import KeyRing  # noqa: PLC0415 - the same
    from policy.export_terms import check  # noqa: PLC0415 - the same
    from policy.labels import load as load_labels  # noqa: PLC0415 - the same

    labels = load_labels(settings.policy_folder() / "labels.yaml")
    grant = read_sites(sites or settings.sites, labels).grant(settings.site, to)
    place = _place(settings, grant, dest)
    way = _encryption(place, settings.evidence_s3.endpoint)
    terms = _waybill(grant, labels, place, way, by=actor, at=now, classes=classes, purposes=purposes)
    check(terms, grant, labels, PATHS)
    keys = KeyRing(settings.evidence_keys_folder, settings.site)
    if grant.sender.key != keys.newest().vkey:
        raise ConfigError(
            f"{grant.where}: {settings.site} signs with {keys.newest().vkey}, and its `key` there is another one, so "
            "that nobody would take the copy for its own: write that key there, at every site"
        )
    listen()
    exporter = _exporter(settings, grant, labels, terms, place, keys)
    plan = exporter.plan(now)
    terms = terms.model_copy(update={"sources": _sources(plan)})
    check(terms, grant, labels, PATHS)
    if dry_run:
        out.print(_listed(plan, terms))
        out.print(f"would leave for {to}: {plan.leaving:,} rows; {plan.withheld:,} would stay")
        return
    if plan.leaving or plan.withheld:
        asyncio.run(_say(settings, actor, terms, plan, now))
    commits: list[int] = []
    exporter.run(plan, terms.document(), lambda _, commit: commits.append(commit.number))
    out.print(
        f"{plan.leaving:,} rows are in the copy for {to} at {place} now, in {len(commits)} commits; "
        f"{plan.withheld:,} stayed here"
    )


def _place(settings: Settings, grant: Grant, dest: str | None) -> str:
    """Give where the copy is."""
    from policy.sites import place  # noqa: PLC0415 - `--help` needs none of it

    chosen = dest or place(grant.sender.location or "", grant.recipient.name)
    own = settings.evidence_files().url("")
    same = chosen.rstrip("/") == own.rstrip("/") if "://" in chosen else _within(Path(chosen), Path(own))
    if same:
        raise ConfigError(f"{chosen} is this site's own evidence; a copy is kept apart from it")
    return chosen


def _within(one: Path, other: Path) -> bool:
    a, b = one.resolve(), other.resolve()
    return a == b or a in b.parents or b in a.parents


def _encryption(place: str, endpoint: str | None) -> Encryption:
    """Tell how the way to a place is protected: only what the place itself shows."""
    if not place.startswith("s3://"):
        return "loopback"
    endpoint = endpoint or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "https://")
    parts = urlsplit(endpoint)
    if parts.scheme == "https":
        return "tls"
    return "loopback" if is_this_machine(parts.hostname) else "none"


def _waybill(
    grant: Grant,
    labels: Labels,
    place: str,
    way: Encryption,
    *,
    by: str,
    at: datetime,
    classes: list[str] | None,
    purposes: list[str] | None,
) -> ExportWaybill:
    from evidence.federation.columns import PATHS  # noqa: PLC0415 - `--help` needs none of it
    from policy.contract import Destination  # noqa: PLC0415 - the same
    from policy.export_terms import ExportWaybill, redaction  # noqa: PLC0415 - the same

    may = grant.config
    chosen = tuple(dict.fromkeys(classes)) if classes else may.classes
    known = [name for name in chosen if name in labels.classes]
    return ExportWaybill(
        export_id=f"export-{uuid4().hex}",
        data_classification=labels.join(known),
        classes=chosen,
        purposes=tuple(dict.fromkeys(purposes)) if purposes else may.purposes,
        destination=Destination(provider=grant.recipient.name, endpoint=place, region=grant.recipient.region),
        destination_days=may.retention_days,
        encryption=way,
        columns=tuple(sorted(may.columns)),
        redaction=redaction(may.columns, PATHS),
        consent=may.consent,
        sources=(),
        operator=by,
        at_utc=at,
    )


def _exporter(
    settings: Settings, grant: Grant, labels: Labels, terms: ExportWaybill, place: str, keys: KeyRing
) -> Exporter:
    from evidence.federation.choice import Terms  # noqa: PLC0415 - `--help` needs none of it
    from evidence.federation.export import Exporter  # noqa: PLC0415 - the same
    from evidence.files.places import open_files  # noqa: PLC0415 - the same
    from evidence.store.site import EvidenceStore  # noqa: PLC0415 - the same
    from policy.export_terms import regulations_at  # noqa: PLC0415 - the same
    from policy.sites import ANY  # noqa: PLC0415 - the same

    return Exporter(
        settings.evidence_files(),
        EvidenceStore(open_files(place, settings.evidence_s3.access()), settings.site, keys),
        grant.recipient.name,
        Terms(
            classes=frozenset(terms.classes),
            columns=frozenset(terms.columns),
            purposes=None if ANY in terms.purposes else frozenset(terms.purposes),
            regulations=regulations_at(labels, grant.recipient.region),
        ),
        keys.verifiers,
    )


def _sources(plan: Plan) -> tuple[object, ...]:
    from policy.export_terms import ExportSource  # noqa: PLC0415 - `--help` needs none of it

    return tuple(
        ExportSource(origin=source.origin, size=source.size, root=base64.b64encode(source.root).decode())
        for source in (original.source for original in plan.originals)
    )


async def _say(settings: Settings, actor: str, terms: ExportWaybill, plan: Plan, now: datetime) -> None:
    """Write evidence of what is about to leave; it is durable when this returns."""
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    content = {
        "recipient": terms.destination.provider,
        "destination": terms.destination.endpoint,
        "region": terms.destination.region,
        "classes": terms.classes,
        "purposes": terms.purposes,
        "columns": len(terms.columns),
        "logs": len(plan.originals),
        "rows": plan.leaving,
        "withheld": plan.withheld,
    }
    fields = {"waybill_hash": terms.digest(), "detail": orjson.dumps(content).decode()}
    deed = Deed(EventType.EVIDENCE_EXPORTED, terms.export_id, actor, fields)
    await say(settings.kafka_settings(), (deed,), site=settings.site, now=now)


def _listed(plan: Plan, terms: ExportWaybill) -> Table:
    purposes = ", ".join(terms.purposes)
    title = f"class {terms.data_classification} or below, purposes: {purposes}, {len(terms.columns)} columns"
    table = Table("log", "from row", "to row", "leave", "stay", title=title, title_justify="left")
    for original in plan.originals:
        ends = (original.done, original.upto.size, original.leaving, original.withheld)
        table.add_row(str(original.log), *(f"{number:,}" for number in ends))
    return table
