"""The parts of the documentation that the code itself tells: tables of fields, settings and topics, help texts.

A part stands on its page between `<!-- from the code: NAME -->` and `<!-- end -->`. A test compares each one;
`PYTHONPATH=tests/support python -m doc_pages` writes all of them anew.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from evidence.records import EvidenceEvent, PolicyRef
from evidence.schema import COLUMNS, POSITION_FIELDS, TIMESTAMP, Column
from inference.routes import AnswerConfig, PriceConfig, RouteConfig, RouteTable
from policy.contract import Waybill
from policy.detection.kinds import KINDS
from policy.labels import CategoryConfig, ClassConfig, HandlingConfig, LabelsConfig, NamesConfig, RegulationConfig
from policy.labels import load as load_labels
from policy.vocabulary import CONTEXT, PRINCIPAL, RESOURCE
from queries import named
from streams.keys import IdentityConfig
from streams.request import RuntimeRequest
from streams.response import Attempt, DeadLetter, Receipt, Response
from streams.topics import ALL, WORKERS
from waybill.cli.program import app
from waybill.dev_topics import TABLE
from waybill.endpoints import EndpointConfig
from waybill.schemas import field_docs
from waybill.settings import PREFIX, BucketConfig, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WIDTH = 100
"""Columns of a help text."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def table(*rows: tuple[str, ...]) -> str:
    """Give a table in Markdown; the first row is its head."""
    head, *body = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read_table(page: str, heading: str) -> list[tuple[str, ...]]:
    """Give the rows, without the head, of the first table under a heading of a page."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    lines = re.search(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    assert lines, f"{page} has no table under {heading!r}"
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines[0].splitlines()[2:]]


def codes(rows: list[tuple[str, ...]]) -> list[str]:
    """Give what stands in backticks in the first column."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


# --- what the models tell


def inner(annotation: Any) -> Any:
    """Give a field's type without None and without annotations."""
    while get_origin(annotation) in {Annotated, typing.Union, UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def kind(annotation: Any) -> str:
    """Name a field's type for people."""
    annotation = inner(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is tuple:
        return f"list of {kind(args[0])}"
    if origin is dict:
        return "object"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return ", ".join(f"`{value}`" for value in annotation)
    names = {
        "Path": "path",
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "true or false",
        "datetime": "time",
    }
    return names.get(annotation.__name__, annotation.__name__)


def fields(
    model: type[BaseModel], stop: tuple[type[BaseModel], ...] = (), start: str = ""
) -> Iterator[tuple[str, ...]]:
    """Give name, type, need and meaning of each field, those of inner records after their own."""
    told = field_docs(model)
    for name, field in model.model_fields.items():
        place = start + (field.alias or name)
        yield f"`{place}`", kind(field.annotation), need(field), told[name]
        below = inner(field.annotation)
        if get_origin(below) is tuple:
            below, place = inner(get_args(below)[0]), f"{place}[]"
        if isinstance(below, type) and issubclass(below, BaseModel) and below not in stop:
            yield from fields(below, stop, f"{place}.")


def need(field: FieldInfo) -> str:
    """Say whether a field must be given, or what counts where it is not."""
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    if value is None or value in ((), {}, "") or isinstance(value, BaseModel):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def field_table(model: type[BaseModel], *stop: type[BaseModel]) -> str:
    """Give the fields of a model as a table."""
    return table(("field", "type", "default", "meaning"), *fields(model, stop))


def settings_table(model: type[BaseModel], start: str) -> str:
    """Give settings as a table; names as variables of the environment."""
    told = field_docs(model)
    rows = [
        (f"`{start}{name.upper()}`", "secret" if inner(field.annotation) is SecretStr else kind(field.annotation),
         need(field), told[name])
        for name, field in model.model_fields.items()
        if name not in {"endpoints", "identity", "evidence_s3"}
    ]  # fmt: skip
    return table(("setting", "type", "default", "meaning"), *rows)


def topics_table() -> str:
    """Give the topics as a table."""
    rows = [(f"`{topic.name}`", topic.kept, topic.about) for topic in (*ALL, WORKERS, TABLE)]
    return table(("topic", "kept", "what is on it"), *rows)


# --- what SQL tells


def sql_type(column: Column) -> str:
    """Name a column's type as DuckDB shows it."""
    names = {"string": "text", "strings": "list of text", "moment": "timestamptz", "struct": "struct"}
    return names.get(column.kind, {"integer": "bigint", "number": "double", "boolean": "boolean"}.get(column.kind, ""))


def events_table() -> str:
    """Give the columns of `events` as a table."""
    rows = list(_columns(COLUMNS, EvidenceEvent, ""))
    where = {
        "log_partition": "Partition of `ai.evidence` that the event lies on.",
        "log_offset": "Its offset there.",
        "log_timestamp": "When the log took it.",
    }
    for field in POSITION_FIELDS:
        shown = "timestamptz" if str(field.type).startswith(str(TIMESTAMP)[:9]) else str(field.type)
        rows.append((f"`{field.name}`", shown, where[field.name]))
    rows.append(("`date`", "date", "UTC day of `occurred_at`, from the file's folder: a condition on it skips files."))
    return table(("column", "type", "meaning"), *rows)


def _columns(columns: tuple[Column, ...], model: type[BaseModel], start: str) -> Iterator[tuple[str, ...]]:
    told = field_docs(model)
    by_alias = {field.alias or name: (name, field) for name, field in model.model_fields.items()}
    for column in columns:
        name, field = by_alias[column.json_name]
        yield f"`{start}{column.name}`", sql_type(column), told[name]
        if column.children:
            yield from _columns(column.children, inner(field.annotation), f"{start}{column.name}.")


def questions_table() -> str:
    """Give the named questions as a table."""
    rows = []
    for question in named.load().values():
        wants = ", ".join(
            f"`{each.name}` ({each.type}{'' if each.required else ', optional'})" for each in question.parameters
        )
        rows.append((f"`{question.name}`", question.title, question.about, wants))
    return table(("question", "what it asks", "what its rows mean", "parameters"), *rows)


def context_table() -> str:
    """Give what policies can read as a table."""
    about = {
        "id": "who asks", "tenant": "for which tenant", "kind": '`ActorKind::"user"` or `"service"`',
        "roles": "roles of the signed identity", "identity": '`Identity::"jwt"` or `"unsigned"`',
        "name": "the route's name", "placement": "`local` or `hosted`", "provider": "a `Provider`",
        "region": "a `Region`", "model": "the model's name", "retentionDays": "days for which it keeps what it is sent",
        "encryption": "an `Encryption`", "class": "a `Class`: of what would be sent, after what is taken out",
        "findings": "set of `Kind`: what is left in it", "categories": "set of `Category`: declared or left in it",
        "regulations": "set of `Regulation`", "purpose": "a `Purpose`", "task": "a `Task`",
        "risk": "0 low, 1 medium, 2 high", "basis": "a `Basis`: what the request states",
        "consent": "a `Consent`: what the register says", "redacted": "set of `Category`: what has been taken out",
        "approved": "whether somebody with the authority has approved it",
        "overridden": "whether somebody with the authority has overridden an escalation",
    }  # fmt: skip
    rows = [
        (f"`{variable}.{name}`", about[name])
        for variable, names in (("principal", PRINCIPAL), ("resource", RESOURCE), ("context", CONTEXT))
        for name in names
    ]
    return table(("name", "what it is"), *rows)


def kinds_table() -> str:
    """Give what detectors look for as a table."""
    labels = load_labels(ROOT / "config" / "policy" / "labels.yaml")
    rows = [
        (f"`{name}`", each.title, each.category, labels.class_of(name), f"`[{each.placeholder}]`")
        for name, each in KINDS.items()
    ]
    return table(("kind", "what it is", "category", "least class", "placeholder"), *rows)


# --- what the command line tells


@cache
def commands() -> list[str]:
    """Give every command, as one types it after `waybill`."""
    found: list[str] = []

    def walk(group: Any, start: tuple[str, ...]) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, (*start, name))
            else:
                found.append(" ".join((*start, name)))

    walk(typer.main.get_command(app), ())
    return found


@cache
def help_text(command: str) -> str:
    """Give what `waybill COMMAND --help` prints."""
    shown = CliRunner().invoke(
        app, [*command.split(), "--help"], prog_name="waybill", env={"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    )
    assert shown.exit_code == 0, shown.output
    lines = [line.rstrip() for line in _ANSI.sub("", shown.output).splitlines()]
    return "\n".join(lines).strip("\n")


def all_help() -> str:
    """Give the help of every command, each under its heading."""
    parts = [f"## waybill {command}\n\n```text\n{help_text(command)}\n```" for command in commands()]
    return "\n\n".join(parts)


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("settings.md", "settings"): lambda: settings_table(Settings, PREFIX),
    ("settings.md", "identity"): lambda: settings_table(IdentityConfig, f"{PREFIX}IDENTITY__"),
    ("settings.md", "bucket"): lambda: settings_table(BucketConfig, f"{PREFIX}EVIDENCE_S3__"),
    ("settings.md", "endpoints"): lambda: settings_table(EndpointConfig, f"{PREFIX}ENDPOINTS__<NAME>__"),
    ("topics.md", "topics"): topics_table,
    ("requests.md", "request"): lambda: field_table(RuntimeRequest),
    ("requests.md", "response"): lambda: field_table(Response, Receipt),
    ("requests.md", "receipt"): lambda: field_table(Receipt, Waybill, Attempt),
    ("requests.md", "attempt"): lambda: field_table(Attempt),
    ("requests.md", "deadletter"): lambda: field_table(DeadLetter),
    ("routes.md", "table"): lambda: field_table(RouteTable, RouteConfig),
    ("routes.md", "route"): lambda: field_table(RouteConfig, PriceConfig, AnswerConfig),
    ("routes.md", "price"): lambda: field_table(PriceConfig),
    ("routes.md", "answer"): lambda: field_table(AnswerConfig),
    ("waybill.md", "waybill"): lambda: field_table(Waybill),
    ("labels.md", "labels"): lambda: field_table(
        LabelsConfig, ClassConfig, CategoryConfig, RegulationConfig, NamesConfig
    ),
    ("labels.md", "class"): lambda: field_table(ClassConfig, HandlingConfig),
    ("labels.md", "handling"): lambda: field_table(HandlingConfig),
    ("policy.md", "record"): lambda: field_table(PolicyRef),
    ("policy.md", "context"): context_table,
    ("concepts.md", "kinds"): kinds_table,
    ("sql.md", "events"): events_table,
    ("sql.md", "questions"): questions_table,
    ("cli.md", "program"): lambda: f"```text\n{help_text('')}\n```",
    ("cli.md", "commands"): all_help,
}
"""What the code tells, by page and name."""


def begins(name: str) -> str:
    """Give the line that begins a part."""
    return f"<!-- from the code: {name} -->"


END = "<!-- end -->"


def part(page: str, name: str) -> str:
    """Give a part as it stands on its page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    before, found, rest = text.partition(begins(name) + "\n")
    assert found, f"docs/{page} has no part {name!r}: {len(before)} characters without it"
    return rest.partition(END)[0].strip("\n")


def rewrite() -> None:
    """Write every part anew."""
    for (page, name), tell in PARTS.items():
        path = DOCS / page
        before, begun, rest = path.read_text(encoding="utf-8").partition(begins(name) + "\n")
        assert begun, f"docs/{page} has no part {name!r}"
        after = rest.partition(END)[2]
        path.write_text(f"{before}{begun}\n{tell()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    rewrite()
