"""`waybill decisions`: the record under which each route may exist: checked, shown, measured and pinned."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from evidence.errors import ConfigError
from waybill.cli.moments import moment
from waybill.cli.options import Home, out, resolve, tell, write_json

if TYPE_CHECKING:
    from policy.placement.records import Records
    from queries.measured import Compared, Measured
    from waybill.settings import Settings

FOLDER: Final = Path("config/decisions")
"""Where the records lie unless told otherwise."""

Folder = Annotated[
    Path | None, typer.Option("--decisions", metavar="DIR", help=f"Folder of the records (default: {FOLDER}).")
]
Routes = Annotated[
    Path | None, typer.Option("--routes", metavar="FILE", help="The route table (default: setting ROUTES).")
]
Artifacts = Annotated[
    list[str] | None,
    typer.Option("--artifact", metavar="ROUTE=FILE", help="The weights of a route, to be digested; may be repeated."),
]

app = typer.Typer(help="Why each route may exist: check, show, compare and pin its record.", no_args_is_help=True)


@app.command()
def check(
    decisions: Folder = None,
    routes: Routes = None,
    artifact: Artifacts = None,
    home: Home = None,
) -> None:
    """Make sure that each route has a complete record whose review is not overdue and whose pins are today's.

    A worker does the same when it starts. Every fault is told, one in a line; then the exit code is 2.

    Example: `waybill decisions check --artifact local-small=model.gguf`
    """
    settings = resolve(home=home, routes=routes)
    from inference.routes import load as load_routes  # noqa: PLC0415 - `--help` needs none of it
    from waybill.decision_pins import current_policy_digest, table_facts  # noqa: PLC0415 - the same

    records, today = _load(settings, decisions), datetime.now(UTC).date()
    facts = table_facts(load_routes(settings.routes), _pairs(artifact))
    digest = current_policy_digest(settings)
    records.check(facts, policy_digest=digest, today=today)
    for route in facts:
        record = records.entries[route.name].record
        seen = [*(["policy"] if digest else []), "price", "model", *(["artifact"] if route.artifact_digest else [])]
        out.print(
            f"{route.name}: {record.status}, review by {record.review_by} ({_left(record.review_by, today)}), "
            f"pins compared: {', '.join(seen)}",
            soft_wrap=True,
        )


@app.command()
def show(
    route: Annotated[str | None, typer.Argument(metavar="ROUTE", help="The route; none shows all of them.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page for a wiki.")] = False,  # noqa: FBT002 - a flag
    decisions: Folder = None,
    home: Home = None,
) -> None:
    """Show a record: what was asked, assumed and given up, where everything lives, and what was pinned.

    Example: `waybill decisions show hosted-general --markdown`
    """
    settings = resolve(home=home)
    from policy.placement import pages as decision_pages  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.decision_tables import record_panel  # noqa: PLC0415 - the same

    records = _load(settings, decisions)
    found = records.whole() if route is None else {route: records.of(route)}
    if markdown:
        out.print("\n".join(decision_pages.markdown(record) for record in found.values()), soft_wrap=True, end="")
        return
    today = datetime.now(UTC).date()
    for record in found.values():
        out.print(record_panel(record, _left(record.review_by, today)))


@app.command()
def drift(
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only calls from then on: RFC 3339, or ago as `12h` or `30d`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,  # noqa: FBT002 - a flag
    decisions: Folder = None,
    home: Home = None,
) -> int:
    """Compare measured cost, capacity and latency with what the records assume; exit code 1 where something is over.

    Example: `waybill decisions drift --since 30d`
    """
    settings = resolve(home=home)
    from queries.database import Evidence  # noqa: PLC0415 - `--help` needs none of it
    from queries.measured import compare, measure, strangers  # noqa: PLC0415 - the same
    from waybill.cli.decision_tables import drift_table  # noqa: PLC0415 - the same

    records = _load(settings, decisions).whole()
    begin = moment(since, datetime.now(UTC)) if since is not None else None
    with Evidence(settings.evidence_files()) as evidence:
        measured = measure(evidence, since=begin, timeout_s=settings.sql_seconds)
    lines = [line for record in records.values() for line in compare(record, measured.get(record.route))]
    others = {name: strangers(record, measured.get(name)) for name, record in records.items()}
    if as_json:
        write_json(_told(lines, others, measured))
    else:
        out.print(drift_table(lines, others, measured))
    for name in sorted(set(measured) - set(records)):
        tell(f"waybill: evidence knows the route {name}, and there is no record of it")
    return 1 if any(line.over_percent is not None for line in lines) or any(others.values()) else 0


@app.command()
def pin(
    route: Annotated[str | None, typer.Argument(metavar="ROUTE", help="The route.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every route.")] = False,  # noqa: FBT002 - a flag
    artifact: Artifacts = None,
    decisions: Folder = None,
    routes: Routes = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pin these policies, before they are activated.")
    ] = None,
    home: Home = None,
) -> None:
    """Put today's digests of policy, price and (with --artifact) weights into a record, once they were reviewed.

    Nothing else in the file changes, and what changes is shown.

    Example: `waybill decisions pin hosted-general`
    """
    if (route is None) is not every:
        raise ConfigError("name one route, or say --all")
    settings = resolve(home=home, routes=routes)
    from inference.routes import load as load_routes  # noqa: PLC0415 - `--help` needs none of it
    from policy.files import read_text  # noqa: PLC0415 - the same
    from policy.placement.records import SUFFIX  # noqa: PLC0415 - the same
    from waybill.decision_pins import (  # noqa: PLC0415 - the same
        current_policy_digest,
        policy_digest,
        repin,
        table_facts,
        write,
    )

    table, folder = load_routes(settings.routes), decisions or _folder(settings)
    if route is not None and route not in table.by_name:
        raise ConfigError(f"there is no route `{route}` in {settings.routes}; it has: {', '.join(table.by_name)}")
    digest = policy_digest(policy, settings) if policy else current_policy_digest(settings)
    made = {}
    for facts in table_facts(table, _pairs(artifact)):
        if every or facts.name == route:
            path = folder / f"{facts.name}{SUFFIX}"
            made[path] = repin(read_text(path, "decision record"), str(path), facts, digest)
    for path, (text, changes) in made.items():
        if changes:
            write(path, text)
        for change in changes:
            told = f"{path}:{change.line}: {change.place}: {change.old or 'added'} -> {change.new}"
            out.print(told, soft_wrap=True)
        if not changes:
            out.print(f"{path}: nothing to change", soft_wrap=True)
    if digest is None:
        tell("waybill: no policy has a digest here, so that pins of policies stay as they are")


def _folder(settings: Settings) -> Path:
    return settings.decisions


def _load(settings: Settings, given: Path | None) -> Records:
    from policy.placement.records import load  # noqa: PLC0415 - `--help` needs none of it

    return load(given or _folder(settings))


def _pairs(given: Iterable[str] | None) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for text in given or ():
        name, sign, file = text.partition("=")
        if not sign or not name or not file:
            raise ConfigError(f"{text!r} names no artifact: write ROUTE=FILE")
        if name in pairs:
            raise ConfigError(f"the artifact of {name} is given twice")
        pairs[name] = Path(file)
    return pairs


def _left(day: date, today: date) -> str:
    days = (day - today).days
    return f"{days} days left" if days >= 0 else f"{-days} days overdue"


def _told(
    lines: Iterable[Compared], others: dict[str, tuple[str, ...]], measured: dict[str, Measured]
) -> list[dict[str, Any]]:
    def about(route: str) -> dict[str, Any]:
        known = measured.get(route)
        return {"calls": known.calls if known else 0, "providers": list(known.providers) if known else []}

    told = [
        {
            "route": line.route,
            "what": line.what,
            "assumed": line.assumed,
            "tolerance_percent": line.tolerance_percent,
            "measured": line.measured,
            "over_percent": line.over_percent if line.assumed else None,
            "verdict": line.verdict,
            **about(line.route),
        }
        for line in lines
    ]
    models = [
        {"route": name, "what": "pins.artifact", "measured": list(names), "verdict": "another model", **about(name)}
        for name, names in others.items()
        if names
    ]
    return told + models
