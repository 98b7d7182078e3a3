"""Races and stuck states: writers and readers beside each other, clocks that jump, files that are damaged."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store
from store_life import LOG, NAME, live_ids, rows

from evidence.errors import StoreError
from evidence.files.local import LocalFiles
from evidence.log.commits import Lost
from evidence.log.keys import KeyRing
from evidence.log.proofs import inclusion
from evidence.log.tiles import TileRef
from evidence.schema import EVENTS_SCHEMA
from evidence.store.compaction import compact, plans, utc_day
from evidence.store.expiry import Expiry, Plan, Rule
from evidence.store.history import packs
from evidence.store.layout import LogPartition, events_file
from evidence.store.live import LiveReader
from evidence.store.site import EvidenceStore
from evidence.store.state import read_head, tile_reader
from evidence.store.upkeep import Upkeep
from evidence.store.writer import Fenced
from evidence.verify.check import verify
from queries.remote import LiveFileSystem
from streams.kafka import KafkaSettings
from streams.stages.sink import Sink, Unobserved
from streams.stages.sink_partition import SinkPartition, missing

DAY = 86_400
EVENTS = list(stories(20))
TWO_DAYS = [*stories(8), *stories(8, begin=NOON + timedelta(days=1))]
AFTER = NOON.timestamp() + 3 * DAY
WAIT_S = 20.0


class NoLock:
    """Holds nothing, as in a bucket."""

    def release(self):
        """Nothing is held."""


class Place(LocalFiles):
    """A folder without locks, as a bucket has none, that waits before a call where a test says so."""

    def __init__(self, root):
        super().__init__(root)
        self.waits_at = self.dies_at = None
        self.reached, self.go_on = threading.Event(), threading.Event()

    def lock(self, name, wait_s):
        """Lock nothing."""
        del name, wait_s
        return NoLock()

    def _maybe(self, call, path):
        if self.dies_at is not None and self.dies_at(call, path):
            raise KeyboardInterrupt
        if self.waits_at is not None and self.waits_at(call, path):
            self.waits_at = None
            self.reached.set()
            assert self.go_on.wait(WAIT_S)

    def create(self, path, data):
        """Create a file, perhaps later."""
        self._maybe("create", path)
        super().create(path, data)

    def delete(self, path):
        """Delete a file, perhaps later."""
        self._maybe("delete", path)
        super().delete(path)


def fill(writer, events=EVENTS, flush=10):
    """Store events in small files."""
    for begin in range(0, len(events), flush):
        some = events[begin : begin + flush]
        writer.append(rows(some, first=begin), end=begin + len(some) - 1)


def damage(path):
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_rows_come_in_while_upkeep_commits(tmp_path):
    """A batch that comes while a compaction is being committed waits for it, and does not fail."""
    place = Place(tmp_path)
    writer = local_store(tmp_path).open(*LOG)
    fill(writer, EVENTS[:-10])
    object.__setattr__(writer._with, "files", place)
    place.waits_at = lambda call, path: call == "create" and "/commits/" in path
    with ThreadPoolExecutor(2) as pool:
        upkeep = pool.submit(Upkeep(place, now=lambda: AFTER), writer)
        assert place.reached.wait(WAIT_S)
        more = pool.submit(writer.append, rows(EVENTS[-10:], first=len(EVENTS) - 10), end=len(EVENTS) - 1)
        with pytest.raises(TimeoutError):
            more.result(0.3)
        place.go_on.set()
        upkeep.result(WAIT_S)
        assert more.result(WAIT_S).rows == 10
    writer.close()
    assert len(live_ids(place)) == len(EVENTS)
    assert verify(tmp_path, [OneKey("home").signer.vkey], jobs=1, pause_s=0).ok


def test_one_that_was_fenced_while_it_cleared_deletes_nothing_of_its_successor(tmp_path):
    """What a dead writer left is never what a later one makes again, so a late deletion of it does no harm."""
    store = EvidenceStore(Place(tmp_path), "home", OneKey("home"))
    first = store.open(*LOG)
    fill(first)
    (plan,) = plans(first.live, today=utc_day(AFTER))
    store.files.dies_at = lambda call, path: call == "create" and "/commits/" in path
    with pytest.raises(KeyboardInterrupt):
        compact(first, store.files, plan)
    store.files.dies_at = None
    slow = Place(tmp_path)
    slow.waits_at = lambda call, path: call == "delete" and path.startswith("events/")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(EvidenceStore(slow, "home", OneKey("home")).open, *LOG)
        assert slow.reached.wait(WAIT_S)
        third = store.open(*LOG)
        Upkeep(store.files, now=lambda: AFTER)(third)
        slow.go_on.set()
        second.result(WAIT_S)
    assert sorted(live_ids(store.files)) == sorted(event.event_id for event in EVENTS)


def test_tiles_of_a_commit_that_did_not_come_about_are_no_evidence_of_a_change(tmp_path):
    """A writer dies behind its tiles, and other rows come in the place of its own: the proof holds."""
    place = Place(tmp_path)
    store = EvidenceStore(place, "home", OneKey("home"))
    story = [event for event in EVENTS if event.intake_id == EVENTS[0].intake_id]
    others = [event for event in EVENTS if event.intake_id != EVENTS[0].intake_id]
    with store.open(*LOG) as writer:
        place.dies_at = lambda call, path: call == "create" and "/commits/" in path
        with pytest.raises(KeyboardInterrupt):
            writer.append(rows(story), end=len(story) - 1)
    place.dies_at = None
    left = tmp_path / "logs" / NAME / "tile" / "0" / "000.p" / str(len(story))
    assert left.exists()
    with store.open(*LOG) as writer:
        gone = ((0, len(story) - 1),)
        writer.append(EVENTS_SCHEMA.empty_table(), end=len(story) - 1, lost=gone)
        writer.append(rows(others, first=len(story)), end=len(EVENTS) - 1)
    assert not left.exists()
    assert verify(tmp_path, [OneKey("home").signer.vkey], jobs=1, pause_s=0, accept_loss=True).ok


def test_all_tiles_beyond_a_log_s_head_are_removed_when_it_is_taken_over(tmp_path):
    """Full and partial ones, on all levels; those of the head stay."""
    place = Place(tmp_path)
    store = EvidenceStore(place, "home", OneKey("home"))
    many = list(stories(120))
    with store.open(*LOG) as writer:
        writer.append(rows(many[:300]), end=299)
        before = {entry.path for entry in place.list(f"logs/{NAME}/tile/")}
        place.dies_at = lambda call, path: call == "create" and "/commits/" in path
        with pytest.raises(KeyboardInterrupt):
            writer.append(rows(many[300:], first=300), end=len(many) - 1)
    place.dies_at = None
    assert len(many) > 800
    assert len({entry.path for entry in place.list(f"logs/{NAME}/tile/")}) > len(before) + 3
    with store.open(*LOG) as writer:
        assert {entry.path for entry in place.list(f"logs/{NAME}/tile/")} == before
        writer.append(rows(many[300:], first=300), end=len(many) - 1)
    assert verify(tmp_path, [OneKey("home").signer.vkey], jobs=1, pause_s=0).ok


def test_a_writer_that_was_fenced_or_closed_leaves_no_files(tmp_path):
    """What it made for a commit that did not come about is gone, and nothing else is."""
    store = EvidenceStore(Place(tmp_path), "home", OneKey("home"), now=lambda: AFTER)
    first = store.open(*LOG)
    fill(first, EVENTS[:-10])
    upkeep = Upkeep(store.files, now=lambda: AFTER)
    with store.open(*LOG) as second:
        with pytest.raises(Fenced):
            first.append(rows(EVENTS[-10:], first=second.position), end=len(EVENTS) - 1)
        first.close()
        with pytest.raises(StoreError, match="closed"):
            upkeep(first)
        second.append(rows(EVENTS[-10:], first=second.position), end=len(EVENTS) - 1)
        upkeep(second)
        known = second.live.files.keys() | second.live.removed.keys()
        assert {entry.path for entry in store.files.list("events/")} == known
    assert verify(tmp_path, [OneKey("home").signer.vkey], jobs=1, pause_s=0).ok


def test_a_damaged_file_keeps_nothing_else_from_its_upkeep(tmp_path):
    """Other days are merged, and what was removed is deleted, though a file of one day is not what it was."""
    writer = local_store(tmp_path, now=lambda: AFTER).open(*LOG)
    fill(writer, TWO_DAYS, 5)
    days = sorted({events_file(path).day for path in writer.live.files})
    bad = next(path for path in sorted(writer.live.files) if events_file(path).day == days[0])
    damage(tmp_path / bad)
    for now in (AFTER, AFTER + 61):
        with pytest.raises(StoreError, match="is not the file that its commit names"):
            Upkeep(writer._with.files, grace_s=60, now=lambda now=now: now)(writer)
    assert len([path for path in writer.live.files if events_file(path).day == days[1]]) == 1
    assert not writer.live.removed
    writer.close()


def test_a_damaged_file_keeps_no_other_rows_from_their_expiry(tmp_path):
    """All rows that are due go, those of later days too; only the damaged file is left, and told of."""
    writer = local_store(tmp_path, now=lambda: AFTER).open(*LOG)
    fill(writer, TWO_DAYS, 5)
    bad = min(writer.live.files)
    damage(tmp_path / bad)
    told = []
    plan = Plan((Rule("short", 1),))
    expiry = Expiry(writer._with.files, lambda: plan, tell=told.append, now=lambda: AFTER + 30 * DAY)
    for _ in range(2):
        with pytest.raises(StoreError, match="is not the file that its commit names"):
            expiry(writer)
    assert set(writer.live.files) == {bad}
    assert len(told) == 2
    writer.close()


def test_a_closed_writer_s_upkeep_ends(tmp_path):
    """Once the log was given back, no step follows the one that was under way."""
    writer = local_store(tmp_path, now=lambda: AFTER).open(*LOG)
    fill(writer, TWO_DAYS, 5)
    before = set(writer.live.files)
    with pytest.raises(StoreError, match="closed"):
        Upkeep(writer._with.files, grace_s=-DAY, now=lambda: AFTER, expire=lambda it: it.close())(writer)
    assert all((tmp_path / path).exists() for path in before)


def test_files_are_deleted_and_commits_packed_though_the_clock_once_ran_ahead(tmp_path):
    """Commits keep the time of the one before; what they removed goes the grace time after the first look at it."""
    clock = [AFTER + 3650 * DAY]
    writer = local_store(tmp_path, now=lambda: clock[0], snapshot_commits=2).open(*LOG)
    fill(writer, EVENTS[:40])
    clock[0] = AFTER
    upkeep = Upkeep(writer._with.files, grace_s=60, pack_commits=2, now=lambda: clock[0])
    upkeep(writer)
    removed = set(writer.live.removed)
    assert removed
    assert all((tmp_path / path).exists() for path in removed)
    assert packs(writer._with.files, NAME)
    clock[0] += 61
    upkeep(writer)
    assert not any((tmp_path / path).exists() for path in removed)
    writer.close()


def test_a_proof_is_made_while_the_log_grows(tmp_path):
    """Who read a commit finds the hashes of its tree, though its partial tiles were replaced by larger ones."""
    writer = local_store(tmp_path).open(*LOG)
    writer.append(rows(EVENTS[:10]), end=9)
    files = writer._with.files
    head = read_head(files, LogPartition(*LOG))
    read = tile_reader(files, NAME)
    before = read(TileRef(0, 0, 10))
    many = list(stories(60))
    for begin in range(10, len(many), 50):
        some = many[begin : begin + 50]
        writer.append(rows(some, first=begin), end=begin + len(some) - 1)
        assert read(TileRef(0, 0, 10)) == before
    assert writer.commit.size > 256
    assert inclusion(3, head.commit.size, read)
    with pytest.raises(StoreError):
        read(TileRef(0, writer.commit.size // 256 + 1, 10))
    writer.close()


def test_heads_are_read_while_the_log_grows(tmp_path):
    """Who asks for the newest state again and again, while it changes, gets one each time."""
    writer = local_store(tmp_path).open(*LOG)
    done, sizes, failed = threading.Event(), [], []

    def ask():
        while not done.is_set():
            try:
                sizes.append(read_head(LocalFiles(tmp_path), LogPartition(*LOG)).commit.size)
            except Exception as error:  # noqa: BLE001 - told below
                failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        fill(writer, EVENTS[:40], 1)
    finally:
        done.set()
        asking.join()
        writer.close()
    assert not failed, failed[:3]
    assert sizes == sorted(sizes)


def test_a_key_that_another_process_made_is_found_when_a_log_is_taken_over(tmp_path):
    """A worker that stood by while the key changed takes over a log that the new key signs."""
    ring = KeyRing.create(tmp_path / "keys", "home")
    standing_by = EvidenceStore(tmp_path / "store", "home", KeyRing(tmp_path / "keys", "home"))
    with EvidenceStore(tmp_path / "store", "home", ring).open(*LOG) as writer:
        ring.rotate()
        fill(writer, EVENTS[:30])
    with standing_by.open(*LOG) as writer:
        assert writer.position == 30


def test_a_reader_does_not_remember_what_was_removed(tmp_path):
    """What a reader holds in mind grows with the live files only."""
    writer = local_store(tmp_path).open(*LOG)
    reader = LiveReader(writer._with.files)
    fill(writer)
    reader.refresh()
    Upkeep(writer._with.files, now=lambda: AFTER)(writer)
    assert len(reader.refresh()) == 1
    assert not reader._logs[NAME].removed
    writer.close()


def test_a_long_question_finds_its_files_after_several_changes(tmp_path):
    """A file in a bucket that is live no longer is served as long as it lies there."""
    files = LocalFiles(tmp_path)
    files.create("events/a", b"abc")
    system = LiveFileSystem(files)
    for number in range(5):
        system.serve({("events/a" if number == 0 else f"events/{number}"): 3})
    with system.open("waybill://events/a") as file:
        assert file.read() == b"abc"


def test_no_two_writers_make_the_same_file(tmp_path):
    """The same rows have another name with another writer, which the file itself states."""
    made = []
    for folder in ("a", "b"):
        with local_store(tmp_path / folder).open(*LOG) as writer:
            (added,) = writer.append(rows(EVENTS[:5]), end=4).commit.add
            made.append(added.path)
            about = pa.OSFile(str(tmp_path / folder / added.path)).read()
            assert f"1 {writer.commit.writer}".encode() in about
    assert made[0] != made[1]


class Asked:
    """Answers what a flush asks the broker for."""

    def __init__(self, *, beginning=0, end=0):
        self.beginning = beginning
        self.end = end

    async def beginning_offsets(self, partitions):
        """Give where the topic begins."""
        return dict.fromkeys(partitions, self.beginning)

    async def end_offsets(self, partitions):
        """Give where it ends, or fail."""
        if self.end is None:
            raise KafkaConnectionError
        return dict.fromkeys(partitions, self.end)

    async def commit(self, offsets):
        """Take offsets."""


async def flush(root, consumer, events, *, first=0, gap=None):
    """Flush a batch at the beginning of a log; give the newest commit."""
    store = local_store(root)
    sink = Sink(kafka=KafkaSettings("127.0.0.1:1"), store=store, log_id=LOG[0], dead_letter=None)
    with store.open(*LOG) as writer:
        records = [
            SimpleNamespace(offset=first + place, value=event.to_json(), timestamp=0)
            for place, event in enumerate(events)
        ]
        part = SinkPartition(writer, 0, 0.0)
        end = records[-1].offset if records else -1
        await sink._flush(consumer, TopicPartition(LOG[1], 0), part, records, end, gap)
        return writer.commit


async def test_offsets_behind_a_batch_are_not_called_lost(tmp_path):
    """The topic may have forgotten what is read already and comes with the next batch."""
    commit = await flush(tmp_path, Asked(beginning=50), EVENTS[:10], first=2, gap=0)
    assert (commit.lost, commit.next) == ((Lost(((0, 1),), "expired"),), 12)


@pytest.mark.parametrize(("end", "number"), [(0, 1), (3, 0), (None, 0)], ids=["silent", "behind", "no-broker"])
async def test_only_a_broker_that_answers_makes_a_silence(tmp_path, end, number):
    """That nothing came is committed where the broker says so, not where it is down or has more."""
    assert (await flush(tmp_path, Asked(end=end), [])).number == number


async def test_an_unexpected_failure_does_not_end_the_upkeep(tmp_path):
    """Each round is tried, whatever the one before failed of."""
    failed = []

    class Observer(Unobserved):
        def upkeep_failed(self):
            failed.append(1)

    def upkeep(_):
        raise ZeroDivisionError

    store = local_store(tmp_path)
    sink = Sink(
        kafka=KafkaSettings("127.0.0.1:1"), store=store, log_id=LOG[0], dead_letter=None, upkeep=upkeep,
        upkeep_s=0.01, observe=Observer(),
    )  # fmt: skip
    with store.open(*LOG) as writer:
        sink._parts[TopicPartition(LOG[1], 0)] = SinkPartition(writer, 0, 0.0)
        task = asyncio.create_task(sink._keep_up())
        for _ in range(200):
            await asyncio.sleep(0.01)
            if len(failed) > 2 or task.done():
                break
        task.cancel()
    assert len(failed) > 2


def test_what_is_missing_is_found_without_counting_each_offset():
    """Offsets without a record are named in ranges, also where there are more than anybody could count."""
    records = [SimpleNamespace(offset=offset) for offset in (3, 4, 7, 10**12)]
    assert missing(records, 2, 9) == ((2, 2), (5, 6), (8, 8))
    assert missing(records, 5, 10**12) == ((5, 6), (8, 10**12 - 1))
    assert missing([], 0, 0) == ()
