"""Completeness: each intake's story is told from its beginning to its end, without a gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from evidence.verify.cells import RowError
from evidence.verify.report import Finding

PHASE_STORIES: Final = 4

BEGINS: Final = 1
ENDS: Final = 2
STANDS_ALONE: Final = 4
"""A deed of an operator, or a record that was rejected unread: one event that is a whole story."""

_BEGINNING: Final = "request.admitted"
_REJECTED: Final = "request.rejected"
_END: Final = "request.ended"
_OPERATOR: Final = "operator"
_FOR_EVER: Final = 1 << 62

Row = tuple[int, int, int, int, str]
"""Offset, sequence, what kind of event, when it is due (microseconds since 1970), request id."""


@dataclass(slots=True)
class StoryPart:
    """The stories in some files."""

    whole: Any
    """Intake ids of those that begin and end there."""

    parts: dict[str, list[Row]]
    """Events of the others, by intake id."""


def story_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Give the few columns that stories are judged by, in a form of their own.

    Raises:
        RowError: a column is not of its type, or lacks a value.
    """
    texts = {}
    for name in ("intake_id", "request_id", "event_type", "stage"):
        column = batch.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if column.null_count or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise RowError(name, "not text, or without a value")
        texts[name] = column
    sequence = batch.column("sequence")
    if sequence.null_count or not pa.types.is_integer(sequence.type):
        raise RowError("sequence", "not a number, or without a value")
    kind = _bits(
        (_among(texts["event_type"], pa.array([_BEGINNING])), BEGINS),
        (_among(texts["event_type"], pa.array([_END])), ENDS),
        (
            pc.or_(_among(texts["stage"], pa.array([_OPERATOR])), _among(texts["event_type"], pa.array([_REJECTED]))),
            STANDS_ALONE,
        ),
    )
    due = batch.column("occurred_at").cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    names = batch.schema.names
    if "deadline" in names and pa.types.is_timestamp(batch.column("deadline").type):
        deadline = batch.column("deadline").cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
        due = pc.coalesce(deadline, due)
    intake = texts["intake_id"]
    encoded = intake if pa.types.is_dictionary(intake.type) else intake.dictionary_encode()
    return pa.RecordBatch.from_arrays(
        [
            batch.column("log_offset").cast(pa.int64()),
            pa.DictionaryArray.from_arrays(encoded.indices.cast(pa.int32()), encoded.dictionary.cast(pa.string())),
            sequence.cast(pa.int64()),
            kind,
            due,
            texts["request_id"].cast(pa.string()),
        ],
        names=["offset", "intake", "sequence", "kind", "due", "request_id"],
    )


def _among(column: Any, values: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        known = pc.is_in(column.dictionary.cast(pa.string()), value_set=values)
        return known.take(column.indices)
    return pc.is_in(column.cast(pa.string()), value_set=values)


def _bits(*masks: tuple[Any, int]) -> Any:
    made = None
    for mask, bit in masks:
        part = pc.if_else(mask, pa.scalar(bit, pa.int8()), pa.scalar(0, pa.int8()))
        made = part if made is None else pc.bit_wise_or(made, part)
    return made


def tell(batches: Sequence[pa.RecordBatch]) -> StoryPart:
    """Sort out which stories are whole within these rows, a column at a time."""
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    offset = table.column("offset").combine_chunks()
    rows = len(offset)
    if rows > 1 and not pc.all(pc.greater_equal(offset.slice(1), offset.slice(0, rows - 1))).as_py():
        table = table.take(pc.array_sort_indices(offset))
    intake = table.column("intake").combine_chunks()
    indices, words = intake.indices, intake.dictionary
    order = pc.array_sort_indices(indices)
    mine = indices.take(order)
    sequence, kind = (table.column(name).combine_chunks().take(order) for name in ("sequence", "kind"))
    other = pc.not_equal(mine.slice(1), mine.slice(0, rows - 1))
    yes = pa.array([True])
    first, last = pa.concat_arrays([yes, other]), pa.concat_arrays([other, yes])
    steps = pc.equal(sequence.slice(1), pc.add(sequence.slice(0, rows - 1), 1))
    steps = pa.concat_arrays([yes, steps])
    alone, begins, ends = (pc.not_equal(pc.bit_wise_and(kind, bit), 0) for bit in (STANDS_ALONE, BEGINS, ENDS))
    good_start = pc.and_(pc.equal(sequence, 0), pc.or_(begins, alone))
    good_end = pc.or_(ends, alone)
    good = pc.and_(
        pc.if_else(first, good_start, pc.and_(steps, pc.invert(begins))),
        pc.equal(last, good_end),
    )
    if pc.all(good).as_py():
        return StoryPart(words.take(pc.unique(mine)), {})
    odd = pc.unique(mine.filter(pc.invert(good)))
    every = pc.unique(mine)
    whole = every.filter(pc.invert(pc.is_in(every, value_set=odd)))
    chosen = table.filter(pc.is_in(indices, value_set=odd))
    parts: dict[str, list[Row]] = {}
    columns = [
        chosen.column(name).to_pylist() for name in ("intake", "offset", "sequence", "kind", "due", "request_id")
    ]
    for name, *row in zip(*columns, strict=True):
        parts.setdefault(name, []).append(tuple(row))
    return StoryPart(words.take(whole), parts)


@dataclass(slots=True)
class Stories:
    """The stories of one log, put together from its parts."""

    excused: Callable[[int, int], str | None]
    """Tells why events between two offsets may be absent: `expired`, `lost`, `before` or None."""

    exported: bool = False
    """Whether the log is a copy that leaves events out by design."""

    whole: list[Any] = field(default_factory=list)
    parts: dict[str, list[Row]] = field(default_factory=dict)
    complete: int = 0
    open: int = 0
    begun_before: int = 0

    def take(self, part: StoryPart) -> None:
        """Add what some files hold."""
        if len(part.whole):
            self.whole.append(part.whole)
        done = []
        for name, rows in part.parts.items():
            known = self.parts.setdefault(name, [])
            known.extend(rows)
            if len(known) > len(rows):
                known.sort()
                if _whole(known):
                    done.append(name)
        for name in done:
            del self.parts[name]
        if done:
            self.whole.append(pa.array(done, pa.string()))

    def end(self, folder: str, now_us: int, open_after_us: int) -> tuple[list[Finding], list[Finding]]:
        """Judge what is not whole; gives findings and losses.

        Args:
            folder: the log's folder.
            now_us: time of the log's last commit, in microseconds since 1970.
            open_after_us: how long behind its deadline a request may be open.
        """
        wrong: list[Finding] = []
        losses: list[Finding] = []
        log = f"logs/{folder}"
        if self.whole:
            names = pa.concat_arrays(self.whole)
            self.complete = len(names)
            counts = pc.value_counts(names)
            twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
            wrong.extend(_twice(log, name) for name in twice.to_pylist())
            again = pc.is_in(pa.array(list(self.parts), pa.string()), value_set=names)
            for name, known in zip(list(self.parts), again.to_pylist(), strict=True):
                if known:
                    wrong.append(_twice(log, name))
                    del self.parts[name]
        for name, rows in self.parts.items():
            rows.sort()
            self._judge(log, name, rows, now_us, open_after_us, wrong, losses)
        return wrong, losses

    def _judge(
        self,
        log: str,
        name: str,
        rows: list[Row],
        now_us: int,
        open_after_us: int,
        wrong: list[Finding],
        losses: list[Finding],
    ) -> None:
        request = rows[0][4]

        def say(kind: str, offset: int, what: str, why: str | None = None) -> None:
            finding = Finding(kind, log, f"request {request} (intake {name}): {what}", (PHASE_STORIES, offset))
            (losses if why == "lost" else wrong).append(finding)

        self._start(rows[0], say)
        if self._middle(rows, say):
            self._finish(rows, now_us - open_after_us, say)

    def _start(self, first: Row, say: Callable[..., None]) -> None:
        offset, sequence, kind, *_ = first
        if sequence == 0:
            if not kind & (BEGINS | STANDS_ALONE):
                what = f"does not begin with request.admitted or request.rejected (offset {offset})"
                say("story-start", offset, what)
            return
        why = self.excused(-1, offset)
        if why == "before":
            self.begun_before += 1
        elif why != "expired" and not self.exported:
            say("story-start", offset, f"begins with event {sequence} at offset {offset}", why)

    def _middle(self, rows: list[Row], say: Callable[..., None]) -> bool:
        """Go from event to event; False where it makes no sense to go on."""
        seen = {rows[0][1]: rows[0][0]}
        for (before, last, kind, *_), (offset, sequence, then, *_) in pairwise(rows):
            if sequence in seen:
                what = f"event {sequence} stands twice, at the offsets {seen[sequence]} and {offset}"
                say("story-repeated", offset, what)
                return False
            seen[sequence] = offset
            for odd, wrong, what in (
                ("story-order", sequence < last, f"event {sequence} at offset {offset} stands behind event {last}"),
                ("story-after-end", kind & ENDS, f"event {sequence} at offset {offset} stands behind its end"),
                ("story-start", then & BEGINS, f"begins again at offset {offset}"),
            ):
                if wrong:
                    say(odd, offset, what)
                    return False
            if sequence != last + 1 and not self.exported:
                why = self.excused(before, offset)
                if why != "expired":
                    missing = f"{last + 1}" if sequence == last + 2 else f"{last + 1} to {sequence - 1}"
                    say(
                        "story-gap",
                        offset,
                        f"event {missing} is missing between the offsets {before} and {offset}",
                        why,
                    )
        return True

    def _finish(self, rows: list[Row], due_us: int, say: Callable[..., None]) -> None:
        offset, sequence, kind, *_ = rows[-1]
        if kind & (ENDS | STANDS_ALONE) or self.exported or self.excused(offset, _FOR_EVER) == "expired":
            return
        if due_us <= max(row[3] for row in rows):
            self.open += 1
            return
        what = f"was admitted and never ended; its last event is number {sequence} at offset {offset}"
        say("never-ended", offset, what)


def _whole(rows: list[Row]) -> bool:
    alone = rows[0][2] & STANDS_ALONE
    return (
        [row[1] for row in rows] == list(range(len(rows)))
        and bool(rows[0][2] & (BEGINS | STANDS_ALONE))
        and bool(rows[-1][2] & (ENDS | STANDS_ALONE))
        and not any(row[2] & (ENDS | STANDS_ALONE) for row in rows[:-1])
        and not any(row[2] & BEGINS for row in rows[1:])
        and not (alone and len(rows) > 1)
    )


def _twice(log: str, name: str) -> Finding:
    return Finding(
        "story-repeated", log, f"intake {name}: its story stands in the log more than once", (PHASE_STORIES, 0)
    )
