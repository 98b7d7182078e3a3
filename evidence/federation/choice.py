"""Which rows may leave: by class, by purpose, and by the regulations that hold where they would go.

An event that says its class goes by it. One that says none goes by the other events of its request in the log: it
leaves only if all classes that they say may. What is known of nobody's word stays: an event of a request that no event
classifies, and events whose request could not be read, which have one name in common and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

UNREADABLE: Final = "unreadable"
"""The request id of records in which none could be read."""

READ: Final = ("request_id", "classification", "purpose", "occurred_at", "outcome", "log_offset")
"""Columns that the choice is made by."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What may leave."""

    classes: frozenset[str]
    """Classes of data."""

    columns: frozenset[str]
    """Parts of a row (`evidence.federation.columns.PATHS`)."""

    purposes: frozenset[str] | None = None
    """Purposes of requests; None for any, and for events without one."""

    regulations: frozenset[str] | None = None
    """Regulations under which data may be where it would go; None for all."""


class Choice:
    """Makes the choice. Feed it the rows that may leave, then everything that the log has, and ask then."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._wanted: set[str] = set()
        self._sought: pa.Array | None = None
        self._classed: set[str] = set()
        self._purposed: set[str] = set()
        self._refused: set[str] = set()
        self._ended: set[str] = set()

    def want(self, table: pa.Table) -> None:
        """Note requests of which events are among these rows that do not speak for themselves."""
        silent = pc.or_(_classes(table).is_null(), table.column("purpose").is_null())
        found = table.column("request_id").filter(silent).unique().to_pylist()
        self._wanted.update(request for request in found if request != UNREADABLE)
        self._sought = None

    @property
    def sure(self) -> bool:
        """Whether every event speaks for itself, so that there is nothing to learn."""
        return not self._wanted

    def learn(self, table: pa.Table) -> None:
        """Learn from rows what the noted requests are."""
        if self._sought is None:
            self._sought = pa.array(sorted(self._wanted), pa.string())
        rows = table.filter(pc.is_in(table.column("request_id"), self._sought))
        requests, classes, purposes = rows.column("request_id"), _classes(rows), rows.column("purpose")
        self._classed.update(_those(requests, classes.is_valid()))
        self._purposed.update(_those(requests, purposes.is_valid()))
        self._ended.update(_those(requests, rows.column("outcome").is_valid()))
        wrong = pc.and_(classes.is_valid(), pc.invert(self._class_leaves(rows)))
        if self._terms.purposes is not None:
            wrong = pc.or_(wrong, pc.and_(purposes.is_valid(), pc.invert(_within(purposes, self._terms.purposes))))
        self._refused.update(_those(requests, wrong))

    def leaves(self, table: pa.Table) -> pa.Array:
        """Tell of each row whether it leaves."""
        classes, requests = _classes(table), table.column("request_id")
        chosen = pc.if_else(classes.is_valid(), self._class_leaves(table), self._vouched(requests, self._classed))
        if self._terms.purposes is not None:
            purposes = table.column("purpose")
            own = _within(purposes, self._terms.purposes)
            by_purpose = pc.if_else(purposes.is_valid(), own, self._vouched(requests, self._purposed))
            chosen = pc.and_(chosen, by_purpose)
        return _flat(chosen)

    def undecided(self, table: pa.Table, since: datetime) -> pa.Array:
        """Tell of each row whether its class may still come: its request has none, has not ended, and is recent."""
        open_ = [
            request != UNREADABLE and request not in self._classed and request not in self._ended
            for request in table.column("request_id").to_pylist()
        ]
        recent = pc.greater(table.column("occurred_at"), pa.scalar(since, pa.timestamp("us", tz="UTC")))
        return _flat(pc.and_(pc.and_(_classes(table).is_null(), pa.array(open_, pa.bool_())), recent))

    def _vouched(self, requests: pa.ChunkedArray, known: set[str]) -> pa.Array:
        """Tell whether the other events of a row's request say something, and nothing that is refused."""
        # `known` holds only requests that were noted, and so never the name that unreadable ones share.
        told = [request in known and request not in self._refused for request in requests.to_pylist()]
        return pa.array(told, pa.bool_())

    def _class_leaves(self, table: pa.Table) -> pa.Array:
        chosen = _within(_classes(table), self._terms.classes)
        if self._terms.regulations is None:
            return chosen
        lists = _flat(pc.struct_field(_flat(table.column("classification")), "regulations"))
        foreign = pc.invert(_within(pc.list_flatten(lists), self._terms.regulations))
        rows = pc.list_parent_indices(lists).filter(foreign)
        return pc.and_(chosen, pc.invert(pc.is_in(pa.array(range(len(lists)), pa.int64()), rows.cast(pa.int64()))))


def _classes(table: pa.Table) -> pa.Array:
    return pc.struct_field(_flat(table.column("classification")), "effective")


def _within(values: pa.Array | pa.ChunkedArray, allowed: Iterable[str]) -> pa.Array:
    """Tell of each value whether it is one of these; null is none of them."""
    return pc.is_in(_flat(values).cast(pa.string()), pa.array(sorted(allowed), pa.string()))


def _those(requests: pa.ChunkedArray, where: pa.Array) -> list[str]:
    found: list[str] = _flat(requests).filter(_flat(where)).unique().to_pylist()
    return found


def _flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
