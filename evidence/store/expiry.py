"""Expiry: rows that have reached their maximum age are removed for ever, and a signed commit says so.

The rows of one UTC day go together. Files that are past as a whole are removed; of the others a copy without the rows
that are past takes their place. One commit does all of it, so that a crash leaves everything or nothing: it names the
rows by their numbers and the rule, and a statement says more. Their leaf hashes stay in the tiles, so that the log
keeps its size and its root, and every proof of another row stays good.

Which rule a row falls under is decided by the class and purpose of its request. A row that states no class takes that
of another row of its intake: in the same file, then in the other files of its day, the day before and the day after.
Where none of them states one, only a rule for all classes fits it. The class in an intent is that of what crossed,
which may be less than the request's, and does not count.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evidence.errors import StoreError, UnavailableError
from evidence.files.seam import Files
from evidence.log.commits import Added, Expired
from evidence.log.ranges import Ranges, of, to_text, union
from evidence.moments import day_after
from evidence.records import EventType
from evidence.rows import leaf_hashes
from evidence.store.compaction import utc_day
from evidence.store.layout import events_file
from evidence.store.reading import read_rows
from evidence.store.writer import PartitionWriter

FORM: Final = "waybill.expiry/1"
"""What a statement says it is."""

_FILES: Final = 500
"""Files of one commit at most."""

_HASH_BYTES: Final = 32
_NEIGHBOURS: Final = (0, -1, 1)
_FACTS: Final = ("intake_id", "event_type", "purpose", "classification.effective")
_UNREADABLE: Final = "unreadable"
"""Request id of records that nobody could read: it joins nothing."""
_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class Rule:
    """How long the rows of some classes and purposes are kept."""

    name: str
    """Its name, as commits state it; a word without blanks."""

    max_days: int | None
    """Days after which a row must be gone; None keeps it for ever."""

    min_days: int = 0
    """Days for which a row must stay."""

    classes: frozenset[str] | None = None
    """Classes of data that it is for; None for all, and for rows that state none."""

    purposes: frozenset[str] | None = None
    """Purposes that it is for; None for all."""

    def __post_init__(self) -> None:
        if self.max_days is not None and not self.min_days < self.max_days:
            raise ValueError(f"rule {self.name}: rows go by whole days, so its minimum must be below its maximum")

    def fits(self, data_class: str | None, purpose: str | None) -> bool:
        """Say whether it is for rows of this class and purpose."""
        return (self.classes is None or data_class in self.classes) and (
            self.purposes is None or purpose in self.purposes
        )

    def due(self, day: date, today: date) -> bool:
        """Say whether rows of a day have to be gone: before the first of them is older than the maximum."""
        return self.max_days is not None and day_after(day, self.max_days) <= today


@dataclass(frozen=True, slots=True)
class Hold:
    """Rows that stay whatever a rule says: those that all of its given fields are true of."""

    tenant: str | None = None
    """Whose."""

    subject: str | None = None
    """About whom: the row's subject, or its actor."""

    request: str | None = None
    """Of which request."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to go, and what must not."""

    rules: tuple[Rule, ...] = ()
    """The first that fits a row counts; a row that none fits stays."""

    holds: tuple[Hold, ...] = ()
    """What stays."""

    version: str = ""
    """Which version of policy says so; statements name it."""

    def rule_for(self, data_class: str | None, purpose: str | None) -> Rule | None:
        """Give the rule of a class and purpose."""
        return next((rule for rule in self.rules if rule.fits(data_class, purpose)), None)


@dataclass(frozen=True, slots=True)
class Removal:
    """What one commit removed."""

    log: str
    """Name of the log."""

    day: date
    """The day of the rows."""

    commit: int
    """The commit's number."""

    rows: Mapping[str, int]
    """How many rows, by rule."""

    statement: bytes
    """The document that says more."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the statement, in hex, as the commit names it."""
        return hashlib.sha256(self.statement).hexdigest()


@dataclass(slots=True)
class _Said:
    """What the statement says of the rows under one rule."""

    leaves: list[Ranges] = field(default_factory=list)
    pieces: list[pa.Table] = field(default_factory=list)


class Expiry:
    """Removes what has to go from one log after another; call it from a thread."""

    def __init__(
        self,
        files: Files,
        plan: Callable[[], Plan],
        *,
        tell: Callable[[Removal], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Describe it.

        Args:
            files: the store.
            plan: gives what has to go and what must not; asked at each call. When it raises, nothing is removed.
            tell: is told of each removal, once it is committed.
            now: the wall clock, in seconds since 1970.
        """
        self._files = files
        self._plan = plan
        self._tell = tell
        self._now = now
        self._looked: dict[str, dict[str, tuple[Plan, frozenset[str]]]] = {}

    def __call__(self, writer: PartitionWriter) -> tuple[Removal, ...]:
        """Remove what has to go from one log; give what was removed.

        Raises:
            Fenced: another writer has taken the log over.
            StoreError: a file is not what its commit says; what can be decided without it was removed.
            UnavailableError: the store cannot be read or written.
        """
        plan = self._plan()
        today = utc_day(self._now())
        found: list[Removal] = []
        unread: list[StoreError] = []
        days = _by_day(writer)
        looked = self._looked.setdefault(str(writer.log), {})
        for day, files in days.items():
            due = frozenset(rule.name for rule in plan.rules if rule.due(day, today))
            left = [added for added in files if due and looked.get(added.path) != (plan, due)]
            while left:
                batch, left = left[:_FILES], left[_FILES:]
                classes = _Classes(self._files, days, day)
                found += self._remove(writer, day, batch, plan, due, classes)
                unread += classes.unread
        known = writer.live.files.keys()
        self._looked[str(writer.log)] = {path: seen for path, seen in list(looked.items()) if path in known}
        if unread:
            raise unread[0]
        return tuple(found)

    def _remove(
        self,
        writer: PartitionWriter,
        day: date,
        batch: Sequence[Added],
        plan: Plan,
        due: frozenset[str],
        classes: _Classes,
    ) -> Iterator[Removal]:
        said: dict[str, _Said] = {}
        looked = self._looked[str(writer.log)]
        gone: list[dict[str, Any]] = []
        add: list[Added] = []
        for added in batch:
            try:
                rows = read_rows(self._files, added)
                rules = _rules_of(rows, classes, plan)
            except StoreError as error:
                classes.unread.append(error)
                continue
            goes = pc.and_(pc.is_in(rules, value_set=pa.array(sorted(due), pa.string())), pc.invert(_held(rows, plan)))
            count = pc.sum(goes).as_py() or 0
            if count == 0:
                looked[added.path] = (plan, due)
                continue
            numbers = _numbers(rows, added.leaves)
            for name in sorted(set(rules.filter(goes).unique().to_pylist())):
                under = pc.and_(goes, pc.equal(rules, name))
                kept = said.setdefault(name, _Said())
                kept.leaves.append(of(sorted(numbers.filter(under).to_pylist())))
                kept.pieces.append(_told(rows.filter(under), classes))
            instead = None if count == added.rows else self._rest(writer, day, rows, goes, numbers)
            if instead is not None:
                add.append(instead)
                looked[instead.path] = (plan, due)
            gone.append({
                "path": added.path,
                "sha256": added.sha256,
                "rows": added.rows,
                "expired": count,
                "replacedBy": instead.path if instead else None,
            })  # fmt: skip
        if not gone:
            return
        statement = self._statement(writer, day, plan, said, gone)
        try:
            written = writer.change(
                add=tuple(add),
                remove=tuple(each["path"] for each in gone),
                expire=tuple(Expired(union(*each.leaves), name) for name, each in sorted(said.items())),
                statement=statement,
            )
        except StoreError:
            writer.discard(add)
            raise
        rows_by_rule = {name: sum(len(piece) for piece in each.pieces) for name, each in sorted(said.items())}
        removal = Removal(str(writer.log), day, written.commit.number, rows_by_rule, statement)
        self._tell(removal)
        yield removal

    def _rest(
        self, writer: PartitionWriter, day: date, rows: pa.Table, goes: pa.ChunkedArray, numbers: pa.Array
    ) -> Added:
        """Make the file of the rows that stay."""
        stays = pc.invert(goes)
        rest = rows.filter(stays)
        order = pc.sort_indices(rest, sort_keys=[("occurred_at", "ascending"), ("log_offset", "ascending")])
        rest = rest.take(order)
        leaves = of(sorted(numbers.filter(stays).to_pylist()))
        made = writer.place(rest, day, leaves, about={"expired": str(len(rows) - len(rest))}, large=True)
        if leaf_hashes(read_rows(self._files, made)) != leaf_hashes(rest):
            self._files.delete(made.path)
            raise StoreError(f"{made.path} does not hold the rows that should stay; nothing was removed")
        return made

    def _statement(
        self,
        writer: PartitionWriter,
        day: date,
        plan: Plan,
        said: Mapping[str, _Said],
        gone: Sequence[Mapping[str, Any]],
    ) -> bytes:
        rules = {rule.name: rule for rule in plan.rules}
        content = {
            "statement": FORM,
            "log": str(writer.log),
            "origin": writer.commit.origin,
            "day": day.isoformat(),
            "at": datetime.fromtimestamp(self._now(), UTC).isoformat(),
            "policy": plan.version,
            "rules": [
                {
                    "rule": name,
                    "maxDays": rules[name].max_days,
                    "minDays": rules[name].min_days,
                    "leaves": to_text(union(*each.leaves)),
                    **_counts(pa.concat_tables(each.pieces)),
                }
                for name, each in sorted(said.items())
            ],
            "files": list(gone),
            "hashes": "the leaf hashes of these rows stay in the log, and its size and root are as before",
        }
        return orjson.dumps(content)


class _Classes:
    """The classes and purposes that a day's intakes state, looked up only where a file does not state them itself."""

    def __init__(self, files: Files, by_day: Mapping[date, Sequence[Added]], day: date) -> None:
        self._files = files
        self._by_day = by_day
        self._day = day
        self._known: list[pa.Table] | None = None
        self.unread: list[StoreError] = []
        """Why some files were left as they are."""

    def of(self, rows: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Give the class and the purpose of each row."""
        own, purpose = _stated(rows)
        intakes = rows.column("intake_id")
        own, purpose = _filled(intakes, own, purpose, _stating(intakes, own, purpose))
        # A story of one event that ends it states all that there is.
        whole = pc.and_(pc.equal(rows.column("sequence"), 0), pc.is_valid(rows.column("outcome")))
        if pc.any(pc.and_(pc.is_null(own), pc.invert(whole))).as_py():
            for known in self._all():
                own, purpose = _filled(intakes, own, purpose, known)
        return own, purpose

    def _all(self) -> list[pa.Table]:
        if self._known is None:
            self._known = [
                self._read(added) for away in _NEIGHBOURS for added in self._by_day.get(day_after(self._day, away), ())
            ]
        return self._known

    def _read(self, added: Added) -> pa.Table:
        try:
            with self._files.reader(added.path) as file:
                rows = pq.ParquetFile(file).read(columns=list(_FACTS))
        except pa.ArrowInvalid as error:
            raise StoreError(f"{added.path} is not the file that its commit names: {error}") from None
        except OSError as error:
            raise UnavailableError(f"{added.path} cannot be read: {error}") from error
        return _stating(rows.column("intake_id"), *_stated(rows))


def _by_day(writer: PartitionWriter) -> dict[date, list[Added]]:
    """Give the live files of a log by day, each day's in the order of their rows."""
    found: dict[date, list[Added]] = {}
    for added in writer.live.files.values():
        found.setdefault(events_file(added.path).day, []).append(added)
    return {day: sorted(files, key=lambda file: file.leaves) for day, files in sorted(found.items())}


def _stated(rows: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Give the class of its request, and the purpose, that each row itself states."""
    own = pc.struct_field(rows.column("classification"), "effective").cast(pa.string())
    crosses = pc.equal(rows.column("event_type").cast(pa.string()), EventType.MODEL_INTENDED)
    return pc.if_else(crosses, None, own), rows.column("purpose").cast(pa.string())


def _stating(intakes: pa.ChunkedArray, own: pa.ChunkedArray, purpose: pa.ChunkedArray) -> pa.Table:
    """Give one row for each intake that states its class."""
    stated = pa.table({"intake": intakes, "class": own, "purpose": purpose}).filter(pc.is_valid(own))
    return stated.group_by(["intake", "class", "purpose"], use_threads=False).aggregate([])


def _filled(
    intakes: pa.ChunkedArray, own: pa.ChunkedArray, purpose: pa.ChunkedArray, known: pa.Table
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Give classes and purposes with those that another row of the intake states where they are missing."""
    if not len(known):
        return own, purpose
    place = pc.index_in(intakes, value_set=known.column("intake").combine_chunks())
    return (
        pc.coalesce(own, known.column("class").combine_chunks().take(place)),
        pc.coalesce(purpose, known.column("purpose").combine_chunks().take(place)),
    )


def _rules_of(rows: pa.Table, classes: _Classes, plan: Plan) -> pa.ChunkedArray:
    """Give the name of each row's rule; null where it has none."""
    own, purpose = classes.of(rows)
    # Few different pairs: the rule of each is looked up once. An empty text is no class and no purpose.
    pairs = pc.binary_join_element_wise(pc.fill_null(own, ""), pc.fill_null(purpose, ""), _SEPARATOR)
    different = pairs.unique()
    names = []
    for pair in different.to_pylist():
        data_class, _, what = pair.partition(_SEPARATOR)
        rule = plan.rule_for(data_class or None, what or None)
        names.append(rule.name if rule else None)
    return pa.chunked_array(
        [pa.array(names, pa.string()).take(pc.index_in(pairs, value_set=different).combine_chunks())]
    )


def _held(rows: pa.Table, plan: Plan) -> pa.ChunkedArray:
    """Say of each row whether a hold keeps it, or another row of its request."""
    held = pa.chunked_array([pa.repeat(pa.scalar(value=False), len(rows))])
    actors = rows.column("actor_ref")
    for hold in plan.holds:
        one = pa.chunked_array([pa.repeat(pa.scalar(value=True), len(rows))])
        if hold.tenant is not None:
            one = pc.and_(one, pc.equal(rows.column("tenant_ref").cast(pa.string()), hold.tenant))
        if hold.request is not None:
            one = pc.and_(one, pc.equal(rows.column("request_id"), hold.request))
        if hold.subject is not None:
            acts = pc.or_kleene(pc.equal(actors, hold.subject), pc.ends_with(actors, f":{hold.subject}"))
            about = pc.equal(rows.column("subject_ref"), hold.subject)
            one = pc.and_(one, pc.or_(pc.fill_null(acts, fill_value=False), pc.fill_null(about, fill_value=False)))
        held = pc.or_(held, pc.fill_null(one, fill_value=False))
    requests = rows.column("request_id").filter(held).unique()
    requests = requests.filter(pc.not_equal(requests, _UNREADABLE))
    return pc.or_(held, pc.is_in(rows.column("request_id"), value_set=requests))


def _numbers(rows: pa.Table, leaves: Ranges) -> pa.Array:
    """Give each row's number in the log: the file's numbers are in the order of the offsets."""
    order = pc.sort_indices(rows, sort_keys=[("log_offset", "ascending")])
    numbers = pa.array(itertools.chain.from_iterable(range(first, last + 1) for first, last in leaves), pa.int64())
    return numbers.take(pc.sort_indices(order))


def _told(rows: pa.Table, classes: _Classes) -> pa.Table:
    """Give what a statement counts of some rows."""
    own, _ = classes.of(rows)
    return pa.table({
        "event": rows.column("event_type").cast(pa.string()),
        "class": own,
        "offset": rows.column("log_offset"),
        "moment": rows.column("occurred_at"),
    })  # fmt: skip


def _counts(told: pa.Table) -> dict[str, Any]:
    offsets, moments = pc.min_max(told.column("offset")), pc.min_max(told.column("moment"))
    return {
        "rows": len(told),
        "offsets": {"first": offsets["min"].as_py(), "last": offsets["max"].as_py()},
        "moments": {"first": moments["min"].as_py().isoformat(), "last": moments["max"].as_py().isoformat()},
        "eventTypes": _by_value(told.column("event")),
        "classes": _by_value(told.column("class")),
    }


def _by_value(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column.combine_chunks())
    return {each["values"] or "": each["counts"] for each in sorted(counted.to_pylist(), key=_value)}


def _value(counted: Mapping[str, Any]) -> str:
    return str(counted["values"] or "")
