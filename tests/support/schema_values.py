"""Values that a JSON Schema accepts; texts of ids are printable, as the request contract asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

Schema = Mapping[str, Any]

_TEXT = st.characters(codec="utf-8")
_PRINTABLE = st.characters(codec="utf-8", categories=["L", "M", "N", "P", "S"])
_LONGEST_ID = 128


def values(  # noqa: C901, PLR0911 - one line for each kind of schema
    schema: Schema, root: Schema, *, items: int = 3, length: int = 12
) -> st.SearchStrategy[Any]:
    """Return a strategy of what a schema accepts.

    Args:
        schema: the schema, or a part of it.
        root: the whole, with its `$defs`.
        items: members of a list at most, where the schema allows as many.
        length: characters of a text without a bound of its own.
    """
    if "$ref" in schema:
        return values(root["$defs"][schema["$ref"].rpartition("/")[2]], root, items=items, length=length)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(one, root, items=items, length=length) for one in schema["anyOf"]])
    match schema["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum"))
            return st.floats(
                least,
                schema.get("maximum"),
                exclude_min="exclusiveMinimum" in schema,
                allow_nan=False,
                allow_infinity=False,
            )
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: not text.endswith("\n"))
        case "string":
            letters = _PRINTABLE if schema.get("maxLength") == _LONGEST_ID else _TEXT
            return st.text(letters, min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", length))
        case "array":
            most = min(items, schema.get("maxItems", items))
            inner = values(schema["items"], root, items=items, length=length) if most else st.nothing()
            return st.lists(inner, min_size=schema.get("minItems", 0), max_size=most)
        case _:
            fields = {
                name: values(part, root, items=items, length=length) for name, part in schema["properties"].items()
            }
            needed = {name: fields.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional=fields)
