"""Compaction: the many small files of a day become few large ones, sorted by time, with bloom filters.

No row changes, so every proof stays good: the commit that swaps the files states the same size and the same root. The
rows are hashed before and after, and nothing is committed unless they are the same. The old files lie on for a while,
for readers that began before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.log.commits import Added
from evidence.log.ranges import union
from evidence.rows import leaf_hashes
from evidence.store.layout import events_file
from evidence.store.live import Live
from evidence.store.reading import read_rows
from evidence.store.writer import PartitionWriter, Written

MAX_ROWS: Final = 1_000_000
"""Rows of a large file at most; a few hundred bytes of memory each while it is made."""

_SMALL_SHARE: Final = 4
"""A file with less than this part of the most is small: it is merged again when there are others."""

_MANY: Final = 64
"""As many small files of a day that is not over are merged."""

_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """Files that become one."""

    day: date
    """Their day."""

    files: tuple[Added, ...]
    """Which, in the order of their rows in the log."""


def plans(live: Live, *, today: date, max_rows: int = MAX_ROWS, many: int = _MANY) -> Iterator[Plan]:
    """Tell what to merge.

    Args:
        live: the live files of a log.
        today: the day that is not over yet; its small files are merged only when there are many.
        max_rows: rows of a large file at most.
        many: how many are many.
    """
    by_day: dict[date, list[Added]] = {}
    for added in live.files.values():
        if added.rows < max_rows // _SMALL_SHARE:
            by_day.setdefault(events_file(added.path).day, []).append(added)
    for day, files in sorted(by_day.items()):
        if len(files) < (2 if day < today else many):
            continue
        group: list[Added] = []
        for added in sorted(files, key=lambda file: file.leaves):
            if group and sum(file.rows for file in group) + added.rows > max_rows:
                if len(group) > 1:
                    yield Plan(day, tuple(group))
                group = []
            group.append(added)
        if len(group) > 1:
            yield Plan(day, tuple(group))


def compact(writer: PartitionWriter, files: Files, plan: Plan) -> Written:
    """Merge the files of a plan.

    Raises:
        Fenced: another writer has taken the log over.
        StoreError: a file is not what its commit says, or the merged one does not hold the same rows.
        UnavailableError: the store cannot be read or written.
    """
    rows = pa.concat_tables([read_rows(files, added) for added in plan.files]).unify_dictionaries()
    order = pc.sort_indices(rows, sort_keys=[("occurred_at", "ascending"), ("log_offset", "ascending")])
    before = leaf_hashes(rows)
    merged = writer.place(
        rows.take(order),
        plan.day,
        union(*(added.leaves for added in plan.files)),
        about={"compacted": str(len(plan.files))},
        large=True,
    )
    wanted = b"".join(before[place * _HASH_BYTES : (place + 1) * _HASH_BYTES] for place in order.to_pylist())
    if leaf_hashes(read_rows(files, merged)) != wanted:
        files.delete(merged.path)
        raise StoreError(f"{merged.path} does not hold the rows that it was made from; the small files stay")
    try:
        return writer.change(add=(merged,), remove=tuple(added.path for added in plan.files))
    except StoreError:
        writer.discard((merged,))
        raise


def delete_removed(writer: PartitionWriter, files: Files, *, now: float, grace_s: float) -> int:
    """Delete the files that were removed long enough ago for every reader to have finished; give how many."""
    gone = [path for path, removed in writer.live.removed.items() if now - removed >= grace_s]
    for path in gone:
        files.delete(path)
    writer.forget(gone, now=now)
    return len(gone)


def utc_day(now: float) -> date:
    """Give the UTC day of a moment, in seconds since 1970."""
    return datetime.fromtimestamp(now, UTC).date()
