"""`waybill sql` and `waybill ask`: questions to the evidence."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from evidence.errors import ConfigError
from queries.terminal import Text
from waybill.cli.federated import Federated, Reach, SitesFile, Strict, asked
from waybill.cli.options import Home, Json, err, out, resolve, write_json

if TYPE_CHECKING:
    from queries.named import Question

Form = Literal["auto", "table", "line", "csv", "json", "jsonl", "md"]
Format = Annotated[
    Form,
    typer.Option(
        "--format", help="How the answer is written; auto is a table, or one record a block where a table is too wide."
    ),
]
Seconds = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Time limit (default: setting SQL_SECONDS).")
]
Rows = Annotated[
    int, typer.Option("--rows", metavar="N", min=1, help="The most rows shown; CSV and JSON are always whole.")
]


def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY", help="One SELECT over events, requests and crossings; - reads it from standard input."
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the query from FILE.")] = None,
    form: Format = "auto",
    as_json: Json = False,  # noqa: FBT002 - a flag
    timeout: Seconds = None,
    rows: Rows = 200,
    federated: Federated = False,  # noqa: FBT002 - a flag
    strict: Strict = False,  # noqa: FBT002 - a flag
    sites: SitesFile = None,
    home: Home = None,
) -> None:
    """Ask the evidence by SQL. It is read-only, and sees what workers write meanwhile.

    `docs/sql.md` describes the tables. With `--federated`, the copies of other sites are asked too.

    Example: `waybill sql "select outcome, count(*) from requests group by all" --format csv`
    """
    settings = resolve(home=home, sql_seconds=timeout)
    text = _query(query, file)
    with asked(settings, Reach(federated, strict, sites)) as opened:
        opened.answer(text, None, settings.sql_seconds, _form(form, as_json=as_json), rows)


def ask(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A question's name; none lists them.")] = None,
    given: Annotated[list[str] | None, typer.Argument(metavar="PARAM=VALUE", help="The question's parameters.")] = None,
    form: Format = "auto",
    as_json: Json = False,  # noqa: FBT002 - a flag
    timeout: Seconds = None,
    rows: Rows = 200,
    federated: Federated = False,  # noqa: FBT002 - a flag
    strict: Strict = False,  # noqa: FBT002 - a flag
    sites: SitesFile = None,
    home: Home = None,
) -> None:
    """Ask the evidence a named question; without a name, list the questions.

    Times are written as 2026-04-01T00:00:00Z, or as 12h or 30d for that long ago.

    Example: `waybill ask left-the-building since=30d`
    """
    settings = resolve(home=home, sql_seconds=timeout)
    from queries import named  # noqa: PLC0415 - `--help` needs none of it

    questions, form = named.load(), _form(form, as_json=as_json)
    if name is None:
        if form in ("json", "jsonl"):
            write_json([_described(question) for question in questions.values()])
        else:
            out.print(_listed(questions.values()))
        return
    if name not in questions:
        raise ConfigError(f"there is no question {name!r}; `waybill ask` lists them")
    question = questions[name]
    values = question.bind(_pairs(question, given or []))
    if form in ("auto", "table", "line"):
        err.print(Text(question.title, "bold") + Text(f": {question.about}"))
    with asked(settings, Reach(federated, strict, sites)) as opened:
        text = question.sql_by_site if federated else question.sql
        opened.answer(text, values, settings.sql_seconds, form, rows)


def _query(query: str | None, file: Path | None) -> str:
    """Return the statement, from the argument, a file or standard input."""
    if (query is None) == (file is None):
        raise ConfigError("give one query: as an argument, as - for standard input, or with --file FILE")
    try:
        if file is not None and str(file) != "-":
            return file.read_text(encoding="utf-8-sig")
        return sys.stdin.buffer.read().decode("utf-8-sig") if query in ("-", None) else str(query)
    except OSError as error:
        raise ConfigError(f"cannot read {file or 'standard input'}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file or 'standard input'} is not UTF-8") from None


def _form(form: Form, *, as_json: bool) -> Form:
    if as_json and form not in ("auto", "json"):
        raise ConfigError(f"--json and --format {form} each say how to write the answer: give one of them")
    return "json" if as_json else form


def _pairs(question: Question, given: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            has = ", ".join(parameter.name for parameter in question.parameters) or "none"
            raise ConfigError(f"{text!r} is not PARAM=VALUE; the parameters of {question.name}: {has}")
        if name in pairs:
            raise ConfigError(f"{name} is given twice")
        pairs[name] = value
    return pairs


def _described(question: Question) -> dict[str, Any]:
    parameters = [{"name": p.name, "type": p.type, "required": p.required} for p in question.parameters]
    return {"name": question.name, "title": question.title, "about": question.about, "parameters": parameters}


def _listed(questions: Iterable[Question]) -> Table:
    table = Table("question", "what it asks", "parameters")
    for question in questions:
        wants = ", ".join(f"{p.name}" if p.required else f"[{p.name}]" for p in question.parameters)
        table.add_row(question.name, question.title, wants)
    return table
