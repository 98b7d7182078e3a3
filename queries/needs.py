"""Which columns of events a statement needs, through the views too: what a site does not grant is null in its rows.

The database's own parser takes the statement and the views apart. Where a name could be of two tables it counts for
both, so that an answer is told to have a hole rather too often than not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import duckdb

from evidence.federation.columns import FIELDS
from queries.statement import nodes, without_explain
from queries.views import CROSSINGS, REQUESTS

_VIEWS: Final = {"requests": REQUESTS, "crossings": CROSSINGS}


def needed(sql: str) -> frozenset[str]:
    """Return what a statement needs of events: columns, and fields as `<column>.<field>`.

    Args:
        sql: a statement that `check_statement` lets pass.
    """
    with duckdb.connect(":memory:") as parser:
        tree = _tree(without_explain(sql), parser)
    tables = {str(node["table_name"]).lower() for node in nodes(tree) if node.get("type") == "BASE_TABLE"}
    refs = list(_refs(tree))
    found: set[str] = _paths(refs) if "events" in tables else set()
    whole = {name for node in nodes(tree) if node.get("type") == "SELECT_NODE" for name in _starred(node)}
    if "events" in whole:
        found |= {path for name in FIELDS for path in _of(name)}
    for view in tables & _VIEWS.keys():
        columns, always = _view(view)
        found |= always
        named = {part.lower() for ref in refs for part in ref[:2]}
        found |= {path for name, paths in columns.items() if view in whole or name in named for path in paths}
    return frozenset(found)


@cache
def _view(name: str) -> tuple[Mapping[str, frozenset[str]], frozenset[str]]:
    """Return what each column of a view needs, and what its rows need whatever is asked."""
    with duckdb.connect(":memory:") as parser:
        node = _tree(_VIEWS[name].partition(" AS\n")[2], parser)[0]["node"]
    # The views are made so that what they compare in this way counts where it is not there.
    for compared in [each for each in nodes(node) if each.get("type") == "COMPARE_DISTINCT_FROM"]:
        compared.clear()
    items = node["select_list"]
    columns = {
        str(item["alias"] or item["column_names"][-1]).lower(): frozenset(_paths(list(_refs(item)))) for item in items
    }
    rest = {part: value for part, value in node.items() if part != "select_list"}
    return columns, frozenset(_paths(list(_refs(rest))))


def _tree(sql: str, parser: duckdb.DuckDBPyConnection) -> Any:
    answer = parser.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchall()
    return json.loads(answer[0][0]).get("statements", [])


def _refs(tree: Any) -> Iterable[list[str]]:
    """Yield the names of columns that a tree refers to, each in its parts."""
    for node in nodes(tree):
        if node.get("type") == "COLUMN_REF":
            yield list(node["column_names"])
        yield from ([name] for name in node.get("using_columns") or ())


def _paths(refs: Iterable[list[str]]) -> set[str]:
    """Return what of events some names mean."""
    found: set[str] = set()
    whole: set[str] = set()
    for ref in refs:
        parts = [part.lower() for part in ref]
        for start in (0, 1):
            if start >= len(parts) or parts[start] not in FIELDS:
                continue
            name, field = parts[start], parts[start + 1] if len(parts) > start + 1 else None
            if field in FIELDS[name]:
                found.add(f"{name}.{field}")
            else:
                whole.add(name)
            break
    # `classification IS NOT NULL` beside `classification.effective` asks for nothing more.
    return found | {path for name in whole if not _of(name) & found for path in _of(name)}


def _of(name: str) -> set[str]:
    return {f"{name}.{field}" for field in FIELDS[name]} or {name}


def _starred(node: Mapping[str, Any]) -> set[str]:
    """Return the tables of which a SELECT takes every column."""
    if not any(item.get("type") == "STAR" for item in node["select_list"]):
        return set()
    found: set[str] = set()
    waiting = [node["from_table"]]
    while waiting:
        table = waiting.pop()
        if table.get("type") == "BASE_TABLE":
            found.add(str(table["table_name"]).lower())
        waiting.extend(value for part in ("left", "right", "source") if isinstance(value := table.get(part), dict))
    return found
