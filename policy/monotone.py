"""What is found in data may close a way and never open one: checked on the syntax trees of policies, at load.

A question about data (`context.findings`, `context.categories`, `context.regulations`) grows where it can turn from no
to yes because data was added, and shrinks where it can turn from yes to no. A permit may only hold questions that
shrink, and a forbid only those that grow; so more data never permits more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final

from cedarpy import pst

DATA: Final = frozenset({"findings", "categories", "regulations"})
"""What policies can read of data, beside its class; for the class, the engine asks about the lower ones too."""


def opened_by_data(template: pst.Template) -> str | None:
    """Name what a policy reads of data in such a way that more data could permit more; None where nothing is."""
    for clause in template.clauses:
        grows = isinstance(clause, pst.When)
        wrong = _reads(clause.expr, grows=grows if template.effect == "permit" else not grows)
        for name in wrong:
            return name
    return None


def _reads(node: Any, *, grows: bool) -> Iterator[str]:
    """Give what makes an expression true by being added (`grows`), or by being taken away."""
    match node:
        case pst.UnaryOp(op="not"):
            yield from _reads(node.arg, grows=not grows)
        case pst.UnaryOp(op="is_empty") if _data(node.arg):
            yield from _any(node.arg) if not grows else ()
        case pst.BinaryOp(op="and" | "or"):
            yield from _reads(node.left, grows=grows)
            yield from _reads(node.right, grows=grows)
        case pst.BinaryOp(op="contains" | "contains_any" | "contains_all") if _data(node.left) and not _any(node.right):
            yield from _any(node.left) if grows else ()
        case pst.BinaryOp(op="contains_any" | "contains_all") if _data(node.right) and not _any(node.left):
            # To hold one of the words grows with the data; to hold nothing but the words shrinks with it.
            yield from _any(node.right) if grows == (node.op == "contains_any") else ()
        case _:
            yield from _any(node)


def _data(node: Any) -> str | None:
    """Give the name where an expression is exactly one of the data's sets."""
    if isinstance(node, pst.GetAttr) and isinstance(node.base, pst.Var) and node.base.name == "context":
        return node.attr if node.attr in DATA else None
    return None


def _any(node: Any) -> list[str]:
    """Give every name of data anywhere in an expression: in a form that can be told neither way, both are possible."""
    found = _data(node)
    if found:
        return [found]
    if isinstance(node, tuple):
        return [name for item in node for name in _any(item)]
    if isinstance(node, dict):
        return [name for item in node.values() for name in _any(item)]
    if is_dataclass(node):
        return [name for field in fields(node) for name in _any(getattr(node, field.name))]
    return []
