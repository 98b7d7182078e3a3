"""A store's whole life in small: flushes, a day's end, a new key, compaction, retention, packs, silence.

`live_on` goes on from wherever the store is, so that a test may end it at any step and call it again.
"""

from __future__ import annotations

from datetime import timedelta

import pyarrow.parquet as pq
from evidence_samples import NOON, stories

from evidence.log.commits import Expired
from evidence.parsing import parse
from evidence.schema import EVENTS_SCHEMA
from evidence.store.layout import events_file
from evidence.store.live import read_live
from evidence.store.upkeep import Upkeep

LOG = ("cluster", "ai.evidence", 0)
NAME = "cluster.ai.evidence-0"
FLUSH = 6
RULE = "three-months"
LATER = NOON.timestamp() + 30 * 86400
"""The moment, in seconds since 1970, at which all of it is made."""

EVENTS = [*stories(2), *stories(3, begin=NOON + timedelta(days=1))]
"""Events of two days."""


def rows(events, *, first=0):
    """Give the rows of some events, from an offset on."""
    offsets = list(range(first, first + len(events)))
    return parse([event.to_json() for event in events], partition=0, offsets=offsets, timestamps_ms=offsets).table


def expire_first_day(writer):
    """Remove the rows of the first day for ever, once the second has begun."""
    days = sorted({events_file(path).day for path in writer.live.files})
    if len(days) == 2:
        gone = [added for path, added in writer.live.files.items() if events_file(path).day == days[0]]
        writer.change(
            remove=tuple(added.path for added in gone),
            expire=tuple(Expired(added.leaves, RULE) for added in gone),
            statement=b'{"rule":"three-months"}',
        )


def live_on(store, ring):
    """Live the whole life, or what is left of it."""
    upkeep = Upkeep(store.files, grace_s=0, pack_after_s=-1, pack_commits=3, now=lambda: LATER, expire=expire_first_day)
    with store.open(*LOG) as writer:
        while writer.position < len(EVENTS):
            position = writer.position
            if position >= len(EVENTS) // 2 and len(ring.vkeys) == 1:
                ring.rotate()
            flush = EVENTS[position : position + FLUSH]
            writer.append(rows(flush, first=position), end=position + len(flush) - 1)
        upkeep(writer)
        writer.append(EVENTS_SCHEMA.empty_table(), end=writer.position - 1)
        upkeep(writer)


def live_ids(files):
    """Give the event ids of the live files, in no order."""
    found = []
    for path in read_live(files, NAME).files:
        with files.reader(path) as source:
            found += pq.read_table(source, columns=["event_id"])["event_id"].to_pylist()
    return found


KEPT = sorted(event.event_id for event in EVENTS if event.occurred_at_utc.date() != NOON.date())
"""The ids that are there in the end."""
