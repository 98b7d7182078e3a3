"""`waybill sql` and `waybill ask`: questions to the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from evidence.errors import ConfigError
from waybill.cli.federated import Federated, Reach, SitesFile, Strict, asked
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, err, out, resolve

if TYPE_CHECKING:
    from queries.named import Question

Format = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="How the answer is written.")]
Seconds = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Time limit (default: setting SQL_SECONDS).")
]
Rows = Annotated[int, typer.Option("--rows", metavar="N", min=1, help="The most rows of a table.")]


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT; the tables: events, requests, crossings.")],
    form: Format = "table",
    timeout: Seconds = None,
    rows: Rows = 200,
    federated: Federated = False,  # noqa: FBT002 - a flag
    strict: Strict = False,  # noqa: FBT002 - a flag
    sites: SitesFile = None,
    home: Home = None,
) -> None:
    """Ask the evidence by SQL; it is read-only, and Parquet files that another worker writes meanwhile are seen.

    With `--federated`, the copies of other sites are asked too, and a site that is missing is named.

    Example: `waybill sql "select outcome, count(*) from requests group by all" --format csv`
    """
    settings = resolve(home=home, sql_seconds=timeout)
    listen()
    with asked(settings, Reach(federated, strict, sites)) as opened:
        opened.render(opened.evidence.query(query, timeout_s=settings.sql_seconds), form, rows)


def ask(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A question's name; none lists them.")] = None,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[PARAM=VALUE…]", help="What the question wants to be told.")
    ] = None,
    form: Format = "table",
    timeout: Seconds = None,
    rows: Rows = 200,
    federated: Federated = False,  # noqa: FBT002 - a flag
    strict: Strict = False,  # noqa: FBT002 - a flag
    sites: SitesFile = None,
    home: Home = None,
) -> None:
    """Ask the evidence a question that has a name; without one, list the questions.

    Example: `waybill ask left-the-building since=2026-04-01T00:00:00Z`
    """
    settings = resolve(home=home, sql_seconds=timeout)
    from queries import named  # noqa: PLC0415 - `--help` needs none of it

    questions = named.load()
    if name is None:
        out.print(_listed(questions.values()))
        return
    if name not in questions:
        raise ConfigError(f"there is no question {name!r}; `waybill ask` lists them")
    question = questions[name]
    values = question.bind(_pairs(given or []))
    if form == "table":
        err.print(f"[bold]{question.title}[/bold]: {question.about}")
    listen()
    with asked(settings, Reach(federated, strict, sites)) as opened:
        opened.render(opened.evidence.query(question.sql, values, settings.sql_seconds), form, rows)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"{text!r} tells a question nothing: write PARAM=VALUE")
        if name in pairs:
            raise ConfigError(f"{name} is given twice")
        pairs[name] = value
    return pairs


def _listed(questions: Iterable[Question]) -> Table:
    table = Table("question", "what it asks", "what it wants to be told")
    for question in questions:
        wants = ", ".join(f"{p.name}" if p.required else f"[{p.name}]" for p in question.parameters)
        table.add_row(question.name, question.title, Text(wants))
    return table
