"""`waybill contracts`: publish the contracts of routes and topics, compare them, show one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from waybill.cli.options import Home, out, tell

if TYPE_CHECKING:
    from inference.routes import RouteTable
    from waybill.settings import Settings

app = typer.Typer(help="Publish the contracts of hosted routes and of topics, and compare them.", no_args_is_help=True)

Routes = Annotated[
    Path | None, typer.Option("--routes", metavar="FILE", help="The route table (default: WAYBILL_ROUTES).")
]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the documents.")]
_FOLDER = Path("docs/contracts")


@app.command()
def export(out_: Folder = _FOLDER, routes: Routes = None, home: Home = None) -> None:
    """Write a contract for each hosted route (Open Data Contract Standard) and one document of the topics (AsyncAPI).

    Addresses, prefix and sizes of topics are those of the settings.

    Example: `waybill contracts export --out contracts`
    """
    from waybill import contracts  # noqa: PLC0415 - `--help` needs none of it

    for path in contracts.export(out_, _made(routes, home)):
        out.print(str(path), soft_wrap=True)


@app.command()
def check(out_: Folder = _FOLDER, routes: Routes = None, home: Home = None) -> int:
    """Compare the documents of a folder with what `export` would write; name each difference; exit code 1 for any.

    Example: `waybill contracts check --out contracts`
    """
    from waybill import contracts  # noqa: PLC0415 - `--help` needs none of it

    told = contracts.check(out_, _made(routes, home))
    for line in told:
        tell(line)
    if told:
        tell(f"run `waybill contracts export --out {out_}`")
        return 1
    out.print(f"{out_} holds what would be written", soft_wrap=True)
    return 0


@app.command()
def show(
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="A hosted route's name.")],
    routes: Routes = None,
    home: Home = None,
) -> None:
    """Show the contract of one hosted route.

    Example: `waybill contracts show hosted-summaries`
    """
    table, settings, classes = _read(routes, home)
    from waybill import contracts  # noqa: PLC0415 - `--help` needs none of it

    out.print(contracts.route_text(route, table, settings, classes).rstrip(), soft_wrap=True)


def _made(routes: Path | None, home: Path | None) -> dict[str, str]:
    table, settings, classes = _read(routes, home)
    from waybill import contracts  # noqa: PLC0415 - `--help` needs none of it

    return contracts.texts(table, settings, classes)


def _read(routes: Path | None, home: Path | None) -> tuple[RouteTable, Settings, tuple[str, ...]]:
    """Read what contracts are made from; the broker of a `waybill dev` that runs here is nobody's contract."""
    from inference.routes import load as load_routes  # noqa: PLC0415 - `--help` needs none of it
    from inference.rulebook import LABELS  # noqa: PLC0415 - the same
    from policy.labels import load as load_labels  # noqa: PLC0415 - the same
    from waybill.settings import load  # noqa: PLC0415 - the same

    settings = load(home=home, routes=routes)
    labels = load_labels(settings.policy_folder() / LABELS)
    return load_routes(settings.routes, labels), settings, labels.classes
