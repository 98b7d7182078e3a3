"""What published contracts are made from: records as JSON Schemas, and YAML that is the same each time."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any, Final

import orjson
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema

from waybill.schemas import field_docs

Content = dict[str, Any]
"""A part of a document: what YAML and JSON can say."""

_WIDTH: Final = 120


def _docs(owner: type[object]) -> Mapping[str, str]:
    """Give the docstring under each field of a dataclass, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    found: dict[str, str] = {}
    if isinstance(body, ast.ClassDef):
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(told))):
                    found[name] = " ".join(told.split())
    return found


class _Described(GenerateJsonSchema):
    """Takes the fields' docstrings as their descriptions, and says no name twice."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> Content:
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        for name, text in field_docs(model).items():
            alias = model.model_fields[name].alias or name
            made.get("properties", {}).get(alias, {}).setdefault("description", text)
        return made

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> Content:
        made = super().dataclass_schema(schema)
        owner: type[object] = schema["cls"]
        for name, text in _docs(owner).items():
            made["properties"][name].setdefault("description", text)
        return made


def schemas(owners: Mapping[str, type], ref_template: str) -> tuple[dict[str, Content], dict[str, Content]]:
    """Give the JSON Schema of each record or dataclass by its key, and those of the records inside them by their names.

    Args:
        owners: the records, by keys of the caller's.
        ref_template: how one schema names another, with `{model}` for the name.
    """
    mode: JsonSchemaMode = "validation"
    asked: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (key, mode, TypeAdapter(owner)) for key, owner in owners.items()
    ]
    made, shared = TypeAdapter.json_schemas(
        asked, by_alias=True, ref_template=ref_template, schema_generator=_Described
    )
    return {key: made[key, mode] for key in owners}, shared.get("$defs", {})


def plain(content: object) -> Any:
    """Give a content without enumerations, tuples and the like: as JSON has it."""
    return orjson.loads(orjson.dumps(content))


class _Dumper(yaml.SafeDumper):
    """Writes lists inside their key and every value where it belongs, never as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - the library's signature
        super().increase_indent(flow, indentless=False)


def dump(content: Content, head: str) -> str:
    """Give a document as YAML, in the order of its content, below a line that says what it is."""
    text = yaml.dump(plain(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return f"# {head}\n{text}"
