"""Compaction: large sorted files instead of small ones, with no row changed and no reader disturbed."""

from __future__ import annotations

import threading
from datetime import date, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store
from store_life import LOG, NAME, live_ids, rows

from evidence.errors import StoreError
from evidence.log.commits import Added
from evidence.rows import leaf_hashes
from evidence.store.compaction import compact, plans
from evidence.store.layout import events_file
from evidence.store.live import Live, read_live
from evidence.store.reading import in_schema
from evidence.store.upkeep import Upkeep
from evidence.verify.check import verify
from queries.database import Evidence

AFTER = NOON.timestamp() + 3 * 86_400
EVENTS = list(stories(60))


def filled(root, *, flush=20, events=EVENTS, **options):
    """Give the writer of a log with many small files."""
    writer = local_store(root, **options).open(*LOG)
    for begin in range(0, len(events), flush):
        some = events[begin : begin + flush]
        writer.append(rows(some, first=begin), end=begin + len(some) - 1)
    return writer


def test_small_files_of_a_day_become_one_that_is_sorted_and_has_bloom_filters(tmp_path):
    """The rows are the same, by time; request, intake, trace and event ids have bloom filters; the log is as it was."""
    writer = filled(tmp_path)
    before = writer.commit
    many = len(writer.live.files)
    Upkeep(writer._with.files, now=lambda: AFTER)(writer)
    (path,) = writer.live.files
    assert many > 10
    assert (writer.commit.size, writer.commit.root) == (before.size, before.root)
    table = pq.read_table(tmp_path / path)
    moments = table["occurred_at"].to_pylist()
    assert moments == sorted(moments)
    assert sorted(table["event_id"].to_pylist()) == sorted(event.event_id for event in EVENTS)
    metadata = f"parquet_metadata('{tmp_path / path}')"
    found = duckdb.sql(f"select path_in_schema from {metadata} where bloom_filter_offset > 0")  # noqa: S608 - a path of ours
    assert {"request_id", "intake_id", "trace_id", "event_id"} <= {name for (name,) in found.fetchall()}
    writer.close()
    assert verify(tmp_path, [OneKey("home").signer.vkey], jobs=1, pause_s=0).ok


def test_old_files_lie_on_for_readers_and_then_go(tmp_path):
    """Replaced files stay for the grace time, counted for nothing, and are deleted afterwards."""
    writer = filled(tmp_path, now=lambda: AFTER)
    files = writer._with.files
    Upkeep(files, grace_s=60, now=lambda: AFTER + 59)(writer)
    removed = set(writer.live.removed)
    assert len(removed) > 10
    assert all((tmp_path / path).exists() for path in removed)
    assert len(live_ids(files)) == len(EVENTS)
    assert verify(tmp_path, [OneKey("home").signer.vkey], jobs=1, pause_s=0).ok
    Upkeep(files, grace_s=60, now=lambda: AFTER + 60)(writer)
    assert not any((tmp_path / path).exists() for path in removed)
    assert not writer.live.removed
    writer.close()


def test_readers_never_see_a_gap_or_a_double_while_it_happens(tmp_path):
    """Questions that are asked without pause during flushes and compactions count whole flushes, each row once."""
    counted, failed, done = [], [], threading.Event()

    def ask():
        with Evidence(tmp_path) as evidence:
            while not done.is_set():
                try:
                    with evidence.query("select count(*), count(distinct event_id) from events") as answer:
                        counted.append(next(answer))
                except Exception as error:  # noqa: BLE001 - told below
                    failed.append(error)

    writer = local_store(tmp_path).open(*LOG)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for begin in range(0, len(EVENTS), 10):
            some = EVENTS[begin : begin + 10]
            writer.append(rows(some, first=begin), end=begin + len(some) - 1)
            Upkeep(writer._with.files, grace_s=30, now=lambda: AFTER)(writer)
    finally:
        done.set()
        asking.join()
        writer.close()
    assert not failed, failed[:3]
    assert len({count for count, _ in counted}) > 3
    assert all(count == distinct and (count % 10 == 0 or count == len(EVENTS)) for count, distinct in counted)
    assert [count for count, _ in counted] == sorted(count for count, _ in counted)


def test_a_plain_read_of_the_live_files_gives_what_the_view_gives(tmp_path):
    """`read_parquet` over the live files and the view `events` have the same rows, before and after compaction."""
    writer = filled(tmp_path)
    for _ in range(2):
        paths = [str(tmp_path / path) for path in read_live(writer._with.files, NAME).files]
        plain = duckdb.sql(f"select event_id, log_offset from read_parquet({paths}) order by 2").fetchall()  # noqa: S608 - paths of ours
        question = "select event_id, log_offset from events order by 2"
        with Evidence(tmp_path) as evidence, evidence.query(question) as answer:
            assert list(answer) == plain
        Upkeep(writer._with.files, now=lambda: AFTER)(writer)
    writer.close()


def test_a_changed_small_file_is_not_compacted(tmp_path):
    """A file that is not what its commit names stops the compaction by its name, and stays."""
    writer = filled(tmp_path)
    path = sorted(writer.live.files)[3]
    data = bytearray((tmp_path / path).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / path).write_bytes(data)
    with pytest.raises(StoreError, match="is not the file that its commit names"):
        Upkeep(writer._with.files, now=lambda: AFTER)(writer)
    assert path in writer.live.files
    writer.close()


def live_of(*sizes, day=date(2026, 3, 1)):
    """Give live files of so many rows."""
    files, begin = {}, 0
    for size in sizes:
        path = f"events/site=home/date={day}/{NAME}-{begin:020d}-{begin + size - 1:020d}-{'0' * 16}.parquet"
        files[path] = Added(path, size, size, "0" * 64, ((begin, begin + size - 1),))
        begin += size
    return Live(0, files)


def planned(live, **options):
    """Give the sizes that are planned to be merged."""
    return [[added.rows for added in plan.files] for plan in plans(live, **{"max_rows": 1000, **options})]


def test_a_day_that_is_over_is_merged_up_to_the_size_of_a_file():
    """Small files are merged in the order of their rows; large ones, and a lone small one, are left."""
    tomorrow = date(2026, 3, 2)
    assert planned(live_of(100, 200, 900, 200), today=tomorrow) == [[100, 200, 200]]
    assert planned(live_of(*[240] * 9), today=tomorrow) == [[240] * 4, [240] * 4]
    assert planned(live_of(100, 900), today=tomorrow) == []


def test_a_day_that_is_not_over_is_merged_when_its_files_are_many():
    """Today's files wait until there are many of them."""
    today = date(2026, 3, 1)
    assert planned(live_of(*[1] * 9), today=today, many=10) == []
    assert planned(live_of(*[1] * 10), today=today, many=10) == [[1] * 10]
    assert events_file(next(iter(live_of(1).files))).day == today


def test_rows_of_several_days_stay_in_their_days(tmp_path):
    """Each day becomes a file of its own, and each row keeps its hash."""
    events = [*stories(8), *stories(8, begin=NOON + timedelta(days=1))]
    events = events[::2] + events[1::2]
    writer = filled(tmp_path, events=events, flush=10)
    hashes = {bytes(leaf_hashes(rows([event], first=place))) for place, event in enumerate(events)}
    for plan in list(plans(writer.live, today=date(2026, 4, 1))):
        compact(writer, writer._with.files, plan)
    assert len(writer.live.files) == 2
    found = set()
    for path in writer.live.files:
        table = pq.read_table(tmp_path / path)
        assert {moment.date() for moment in table["occurred_at"].to_pylist()} == {events_file(path).day}
        data = leaf_hashes(table)
        found |= {data[place : place + 32] for place in range(0, len(data), 32)}
    assert found == hashes
    writer.close()


def test_what_a_newer_version_wrote_is_not_dropped():
    """A column, or a member of a struct, that this version does not know stops the compaction, by its name."""
    table = rows(EVENTS[:3])
    place = table.schema.get_field_index("policy")
    policy = table.column(place).combine_chunks()
    newer = pa.StructArray.from_arrays(
        [*policy.flatten(), pa.array(["x"] * 3)], names=[*(field.name for field in policy.type), "novel"]
    )
    for made, name in (
        (table.append_column("novel", pa.array(["x"] * 3)), "novel"),
        (table.set_column(place, "policy", newer), "policy.novel"),
    ):
        with pytest.raises(StoreError, match=f"a column '{name}' that this version does not know"):
            in_schema(made)
