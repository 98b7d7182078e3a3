"""JSON Schemas of every record and of the route table: `python -m waybill.schemas` writes them, `--check` compares.

The text under each field is the field's own docstring, so that schema and code cannot tell two stories.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from evidence.records import EvidenceEvent
from inference.routes import RouteTable
from policy.contract import Waybill
from policy.labels import LabelsConfig
from policy.placement.form import DecisionRecord
from policy.retention import RetentionConfig
from streams.approvals import ApprovalRequest, ApprovalVerdict
from streams.consent import ConsentEntry
from streams.request import RuntimeRequest
from streams.response import DeadLetter, Receipt, Response
from streams.work import LedgerEntry, Work

FOLDER: Final = Path("docs/schemas")
"""Where they lie in the project."""

SCHEMAS: Final[dict[str, type[BaseModel]]] = {
    "runtime-request": RuntimeRequest,
    "response": Response,
    "receipt": Receipt,
    "work": Work,
    "ledger-entry": LedgerEntry,
    "dead-letter": DeadLetter,
    "evidence-event": EvidenceEvent,
    "waybill": Waybill,
    "route-table": RouteTable,
    "labels": LabelsConfig,
    "retention-rules": RetentionConfig,
    "decision-record": DecisionRecord,
    "consent-entry": ConsentEntry,
    "approval-request": ApprovalRequest,
    "approval-verdict": ApprovalVerdict,
}
"""The models, by the name of their file."""


@cache
def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Give the docstring under each field of a model and of its bases, by the field's name, on one line."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        if not isinstance(body, ast.ClassDef):
            continue
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(told))):
                    found[name] = " ".join(told.split())
    return {name: text for name, text in found.items() if name in model.model_fields}


class _Described(GenerateJsonSchema):
    """Takes the fields' docstrings as their descriptions, and says no name twice."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, text in field_docs(model).items():
            alias = model.model_fields[name].alias or name
            made.get("properties", {}).get(alias, {}).setdefault("description", text)
        return made


def rendered(name: str) -> bytes:
    """Give the text of one schema's file."""
    made = SCHEMAS[name].model_json_schema(by_alias=True, schema_generator=_Described)
    about = {"$schema": GenerateJsonSchema.schema_dialect, "$id": f"urn:waybill:schema:{name}"}
    return orjson.dumps({**about, **made}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def generate(folder: Path = FOLDER) -> tuple[Path, ...]:
    """Write every schema; give the files.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in SCHEMAS:
        path = folder / f"{name}.json"
        path.write_bytes(rendered(name))
        written.append(path)
    return tuple(written)


def check(folder: Path = FOLDER) -> tuple[str, ...]:
    """Give one sentence for each file that is not what the code makes: changed, missing, or of no record."""
    told = []
    for name in SCHEMAS:
        path = folder / f"{name}.json"
        if not path.is_file():
            told.append(f"{path} is missing")
        elif path.read_bytes() != rendered(name):
            told.append(f"{path} is not what the code makes")
    known = {f"{name}.json" for name in SCHEMAS}
    told += [f"{path} is the schema of no record" for path in sorted(folder.glob("*.json")) if path.name not in known]
    return tuple(told)


def main(argv: list[str] | None = None) -> int:
    """Write the schemas or compare them; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m waybill.schemas", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file differs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files lie (default: docs/schemas)")
    given = parser.parse_args(argv)
    if not given.check:
        print("\n".join(str(path) for path in generate(given.folder)))  # noqa: T201 - what the command says
        return 0
    told = check(given.folder)
    for line in told:
        print(line, file=sys.stderr)  # noqa: T201 - the same
    if told:
        print("run `python -m waybill.schemas`", file=sys.stderr)  # noqa: T201 - the same
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
