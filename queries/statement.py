"""Which statements may be asked: one that reads, and nothing else.

The statement's kind alone does not tell: DuckDB lets `WITH x AS (COPY … TO …) SELECT …` pass for a SELECT, and some
table functions change the database's behaviour or read memory at an address. So the statement is taken apart by the
database's own parser, and only known kinds of nodes and known table functions pass. What a later version of the
database adds is refused until someone has looked at it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from queries.errors import QueryError

READING_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""Kinds of statements and parts of statements that only read."""

TABLE_FUNCTIONS: Final = frozenset(
    {
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_keywords",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "histogram",
        "histogram_values",
        "json_each",
        "json_tree",
        "range",
        "repeat",
        "summary",
        "unnest",
    }
)
"""Functions that may stand where a table stands; the files are read through the views alone."""

_EXPLAIN: Final = re.compile(r"\s*explain\s+(analyze\s+)?(?=\S)", re.IGNORECASE)


def check_statement(sql: str, parser: duckdb.DuckDBPyConnection) -> None:
    """See that a text is exactly one statement that reads, or EXPLAIN of one.

    Args:
        sql: the text.
        parser: a connection of its own, of the database that will answer.

    Raises:
        QueryError: it is not; the text says what it is instead.
    """
    try:
        kinds = [statement.type for statement in duckdb.extract_statements(sql)]
        if kinds == [duckdb.StatementType.EXPLAIN]:
            sql = without_explain(sql)
            kinds = [statement.type for statement in duckdb.extract_statements(sql)]
        if kinds != [duckdb.StatementType.SELECT]:
            found = ", ".join(kind.name for kind in kinds) or "nothing"
            if found == "MULTI":
                raise QueryError("PIVOT needs its values listed: PIVOT events ON stage IN ('admission', 'dispatch') …")
            raise QueryError(f"evidence is read-only: one SELECT statement can be asked at a time, and this is {found}")
        answer = parser.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchall()
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    tree = json.loads(answer[0][0]) if answer else {"error": True}
    if tree["error"]:
        raise QueryError(f"the statement cannot be taken apart: {tree.get('error_message', 'for no reason told')}")
    for node in nodes(tree["statements"]):
        kind = node.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in READING_NODES:
            raise QueryError(f"evidence is read-only: a SELECT cannot hold {kind.removesuffix('_NODE').lower()} either")
        if kind == "TABLE_FUNCTION":
            name = str(node["function"]["function_name"]).lower()
            if name not in TABLE_FUNCTIONS:
                raise QueryError(f"{name}() cannot be read from; ask the views events, requests and crossings")


def without_explain(sql: str) -> str:
    """Return the statement that a text explains; any other text as it is."""
    explain = _EXPLAIN.match(sql)
    return sql[explain.end() :] if explain else sql


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Give every object in a tree, without recursion: a statement may be nested deeper than a stack."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
