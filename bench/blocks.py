"""Large stores of evidence, made quickly: one block of stories again and again, with other ids and other times.

The rows go through the store's real writer: hashed, in signed commits, in files of one flush each. Only how they come
about is short: ids are drawn anew and everything else is copied.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from bench import stories
from evidence.log.keys import KeyRing
from evidence.parsing import parse
from evidence.schema import EVENTS_SCHEMA
from evidence.store.site import EvidenceStore
from evidence.store.upkeep import Upkeep

FLUSH_ROWS: Final = 5_000
DAYS: Final = 7
SITE: Final = "bench"
_TOPIC: Final = "ai.evidence"
_BASE_STORIES: Final = 7_000
"""Different stories; a flush takes some 720 of them."""

_END: Final = datetime(2026, 1, 8, tzinfo=UTC)
"""When the last event may have happened, so that every day is over."""

_IDS: Final = {
    "event_id": "event", "intent_id": "event", "intake_id": "intake", "trace_id": "trace", "request_id": "request",
    "span_id": "span", "parent_span_id": "span", "waybill_hash": "waybill", "input_sha256": "input",
    "output_sha256": "output", "response_id": "response",
}  # fmt: skip
"""Columns that are drawn anew; those of one name share their values."""


@dataclass(frozen=True, slots=True)
class Built:
    """A store that was made."""

    folder: Path
    """Where it lies."""
    vkey: str
    """Its verifier key."""
    rows: int
    """Rows in it."""
    files: int
    """Live files."""
    size: int
    """Bytes of them."""


class Blocks:
    """Gives blocks of rows, each with ids of its own."""

    def __init__(self, *, seed: int = 1) -> None:
        """Make the stories that are copied."""
        self._rng = random.Random(seed)  # noqa: S311 - made-up evidence, no secret
        self._bases: list[pa.Table] = []
        values: list[bytes] = []
        for story in stories.stories(_BASE_STORIES, datetime(2026, 1, 1, tzinfo=UTC), seed=seed):
            if len(values) + len(story) > FLUSH_ROWS:
                self._bases.append(_parsed(values))
                values = []
            values += story
        self._ids = [_encoded(base) for base in self._bases]

    def blocks(self, rows: int) -> Iterator[pa.Table]:
        """Give blocks of about 5,000 rows until there are so many, evenly over seven days."""
        number, offset = 0, 0
        step = timedelta(days=DAYS) / max(1, rows // FLUSH_ROWS)
        while offset < rows:
            place = number % len(self._bases)
            base = self._bases[place]
            begin = _END - timedelta(days=DAYS) + step * number
            yield self._block(base, self._ids[place], begin, offset)
            offset += base.num_rows
            number += 1

    def _block(self, base: pa.Table, ids: dict[str, _Ids], begin: datetime, offset: int) -> pa.Table:
        drawn = {name: self._drawn(known) for name, known in ids.items()}
        shift = pa.scalar(begin - base.column("occurred_at")[0].as_py(), pa.duration("us"))
        columns = []
        for name, column in zip(EVENTS_SCHEMA.names, base.columns, strict=True):
            if name in _IDS:
                indices = ids[_IDS[name]].indices[name]
                columns.append(drawn[_IDS[name]].take(indices))
            elif name in {"occurred_at", "deadline"}:
                columns.append(pc.add(column, shift))
            elif name == "log_offset":
                columns.append(pa.array(range(offset, offset + base.num_rows), pa.int64()))
            elif name == "log_timestamp":
                columns.append(pc.add(base.column("occurred_at"), shift).cast(column.type, safe=False))
            else:
                columns.append(column)
        return pa.Table.from_arrays(columns, schema=EVENTS_SCHEMA)

    def _drawn(self, known: _Ids) -> pa.StringArray:
        """Draw as many ids as there were, of the length that they had."""
        count, width = known.count, known.width
        text = self._rng.randbytes((count * width + 1) // 2).hex()[: count * width].encode()
        offsets = array("i", range(0, count * width + 1, width))
        return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


@dataclass(frozen=True, slots=True)
class _Ids:
    """The ids of one kind in a block."""

    count: int
    width: int
    indices: dict[str, pa.Array]
    """For each column, which of the ids each row has; null where it has none."""


def _encoded(base: pa.Table) -> dict[str, _Ids]:
    found = {}
    for kind in dict.fromkeys(_IDS.values()):
        names = [name for name, its in _IDS.items() if its == kind]
        words = pc.drop_null(pc.unique(pa.chunked_array([c for name in names for c in base.column(name).chunks])))
        indices = {name: pc.index_in(base.column(name), value_set=words).combine_chunks() for name in names}
        found[kind] = _Ids(len(words), len(words[0].as_py()), indices)
    return found


def _parsed(values: list[bytes]) -> pa.Table:
    count = len(values)
    made = parse(values, partition=0, offsets=range(count), timestamps_ms=[0] * count)
    assert not made.rejects, made.rejects[0]
    return made.table.combine_chunks()


class _Clock:
    """Says that it is a little after the rows that are being written."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def build(folder: Path, rows: int, say: Callable[[str], None] = lambda _: None) -> Built:
    """Make a store of so many rows, in small files.

    Args:
        folder: where its files and, in `keys`, its key go.
        rows: how many at least.
        say: is told how far it is.
    """
    clock = _Clock()
    keys = KeyRing.create(folder.with_name(f"{folder.name}-keys"), SITE)
    store = EvidenceStore(folder, SITE, keys, now=clock)
    with store.open(SITE, _TOPIC, 0) as writer:
        for number, block in enumerate(Blocks().blocks(rows)):
            clock.now = pc.max(block.column("occurred_at")).as_py().timestamp() + 2
            writer.append(block, end=writer.position + block.num_rows - 1)
            if number % 200 == 199:
                say(f"{writer.position:,} rows")
    return described(folder, store)


def compact(folder: Path) -> Built:
    """Compact a store of `build`, and delete what that leaves over."""
    clock = _Clock()
    clock.now = _END.timestamp() + 24 * 3600
    store = EvidenceStore(folder, SITE, KeyRing(_keys(folder), SITE), now=clock)
    with store.open(SITE, _TOPIC, 0) as writer:
        Upkeep(store.files, grace_s=0, now=clock)(writer)
    return described(folder, store)


def described(folder: Path, store: EvidenceStore | None = None) -> Built:
    """Describe a store that is there."""
    keys = KeyRing(_keys(folder), SITE)
    store = store or EvidenceStore(folder, SITE, keys)
    with store.open(SITE, _TOPIC, 0) as writer:
        files = writer.live.files.values()
        return Built(folder, keys.vkeys[0], sum(f.rows for f in files), len(files), sum(f.size for f in files))


def _keys(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-keys")
