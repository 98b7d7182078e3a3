"""The Arrow form of the table `events`, derived from the record that travels.

Every field of `EvidenceEvent` is one column: `requestId` on the topic is `request_id` in the table, and the suffix
`Utc` is dropped, because a column's type says it (`occurredAtUtc` is `occurred_at`). Nested records are structs. Three
columns more say where the record lies in its log.

The columns' types and the checks that a batch has to pass are both read from the model's JSON Schema, so that a new
field cannot be forgotten in one of them. Closed lists and names of few different values are dictionary columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from evidence.records import EVIDENCE_VERSION, EvidenceEvent

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
"""Moments that an event tells."""

DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())
"""Columns of few different values."""

FEW_VALUES: Final = frozenset(
    {
        "evidence_version",
        "event_type",
        "stage",
        "site",
        "identity",
        "tenant_ref",
        "task_type",
        "purpose",
        "outcome",
    }
)
"""Top-level columns that hold few different values; inside structs, Parquet's own dictionaries do the same."""

SUPPORTED_MAJOR: Final = EVIDENCE_VERSION.split(".", maxsplit=1)[0]
"""Major version of the events that this table can hold."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of the record as a column, with what its values must satisfy."""

    name: str
    """Name in the table."""

    json_name: str
    """Name on the topic."""

    kind: str
    """`string`, `integer`, `number`, `boolean`, `moment`, `strings` or `struct`."""

    optional: bool
    """Whether the value may be absent."""

    values: frozenset[str] | None = None
    """The closed list of values, where there is one."""

    min_length: int | None = None
    """Fewest characters of a string."""

    max_length: int | None = None
    """Most characters of a string."""

    minimum: float | None = None
    """Smallest number."""

    maximum: float | None = None
    """Largest number."""

    children: tuple[Column, ...] = ()
    """The fields of a struct."""

    @property
    def json_type(self) -> pa.DataType:
        """The type as which the JSON reader reads the field; moments are text until they are checked."""
        return self._type(moment=pa.string(), few=pa.string(), json=True)

    @property
    def type(self) -> pa.DataType:
        """The type in the table."""
        return self._type(moment=TIMESTAMP, few=DICTIONARY, json=False)

    def _type(self, *, moment: pa.DataType, few: pa.DataType, json: bool) -> pa.DataType:
        match self.kind:
            case "string":
                return few if self.name in FEW_VALUES else pa.string()
            case "integer":
                return pa.int64()
            case "number":
                return pa.float64()
            case "boolean":
                return pa.bool_()
            case "moment":
                return moment
            case "strings":
                return pa.list_(pa.string())
            case "struct":
                return pa.struct(
                    [
                        (child.json_name, child.json_type) if json else (child.name, child.type)
                        for child in self.children
                    ]
                )
            case _:
                raise TypeError(f"{self.json_name}: no column type for {self.kind}")


def _snake(json_name: str) -> str:
    text = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in json_name)
    return text.removesuffix("_utc")


def _columns(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[Column]:
    for json_name, prop in schema["properties"].items():
        variants = [variant for variant in prop.get("anyOf", [prop]) if variant.get("type") != "null"]
        if len(variants) != 1:
            raise TypeError(f"{json_name}: a column has one type, this field has {len(variants)}")
        variant = variants[0]
        if "$ref" in variant:
            variant = definitions[variant["$ref"].rsplit("/", maxsplit=1)[-1]]
        kind = {"object": "struct", "array": "strings"}.get(variant["type"], variant["type"])
        if variant.get("format") == "date-time":
            kind = "moment"
        elif kind == "strings" and variant["items"] != {"type": "string"}:
            raise TypeError(f"{json_name}: only lists of plain strings have a column type")
        yield Column(
            name=_snake(json_name),
            json_name=json_name,
            kind=kind,
            optional=any(option.get("type") == "null" for option in prop.get("anyOf", [])),
            values=frozenset(variant["enum"]) if "enum" in variant else None,
            min_length=variant.get("minLength"),
            max_length=variant.get("maxLength"),
            minimum=variant.get("minimum"),
            maximum=variant.get("maximum"),
            children=tuple(_columns(variant, definitions)) if kind == "struct" else (),
        )


_JSON_SCHEMA: Final = EvidenceEvent.model_json_schema(by_alias=True)

COLUMNS: Final = tuple(_columns(_JSON_SCHEMA, _JSON_SCHEMA["$defs"]))
"""One column for each field of the record, in its order."""

POSITION_FIELDS: Final = (
    pa.field("log_partition", pa.int32(), nullable=False),
    pa.field("log_offset", pa.int64(), nullable=False),
    pa.field("log_timestamp", pa.timestamp("ms", tz="UTC")),
)
"""Where the record lies in its log, and when the log took it (null where the log does not say)."""

JSON_SCHEMA: Final = pa.schema([(column.json_name, column.json_type) for column in COLUMNS])
"""What the JSON reader expects; any other name is an error."""

EVENTS_SCHEMA: Final = pa.schema(
    [*(pa.field(column.name, column.type, nullable=column.optional) for column in COLUMNS), *POSITION_FIELDS]
)
"""The table `events`."""


def parquet_dictionary_columns() -> list[str]:
    """Give the Parquet paths whose values are few enough for Parquet's dictionary encoding."""
    names = [column.name for column in COLUMNS if column.name in FEW_VALUES]
    for column in COLUMNS:
        if column.kind == "strings":
            names.append(f"{column.name}.list.element")
        for child in column.children:
            if child.kind == "string" and child.name != "message":
                names.append(f"{column.name}.{child.name}")
            elif child.kind == "strings":
                names.append(f"{column.name}.{child.name}.list.element")
    return names
