"""The writer of a log: exact coverage, one commit for each flush, one writer."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import stories
from evidence_stores import OneKey, local_store
from store_life import LOG, NAME, live_ids, rows

from evidence.errors import ConfigError, StoreError
from evidence.log.commits import Lost
from evidence.log.notes import Verifier, open_note
from evidence.schema import EVENTS_SCHEMA
from evidence.store.history import commits_after
from evidence.store.layout import LogPartition, commit_path, events_file

EVENTS = list(stories(20))


def test_a_commit_says_what_it_covers_and_goes_on_from_the_one_before(tmp_path):
    """Offsets without records are covered too, and leaf numbers count rows, not offsets."""
    store = local_store(tmp_path)
    with store.open(*LOG, beginning=7, partitions=4) as writer:
        first = writer.append(rows(EVENTS[:10], first=8), end=27).commit
        second = writer.append(rows(EVENTS[10:20], first=40), end=49, rejected=[31, 32, 35]).commit
    assert (first.next, first.size, first.add[0].leaves) == (28, 10, ((0, 9),))
    assert (second.next, second.size, second.add[0].leaves) == (50, 20, ((10, 19),))
    assert (second.rejected, second.partitions, second.number) == (((31, 32), (35, 35)), 4, 2)
    file = events_file(second.add[0].path)
    assert (file.day, file.log, file.first, file.last) == (date(2026, 3, 1), NAME, 40, 49)
    assert file.hash == second.add[0].sha256[:16]
    assert store.resume(*LOG) == 50
    assert live_ids(store.files) == [event.event_id for event in EVENTS[:20]]


def test_each_commit_is_signed_and_holds_the_hash_of_the_one_before(tmp_path):
    """A commit opens as a signed note under the site's key, and the chain of hashes is whole."""
    store = local_store(tmp_path)
    with store.open(*LOG) as writer:
        writer.append(rows(EVENTS[:5]), end=4)
    verifier = Verifier.from_vkey(OneKey("home").signer.vkey)
    notes = [store.files.read(commit_path(NAME, number)) for number in (0, 1)]
    assert all(open_note(note, [verifier]).text.startswith("waybill/home/cluster/ai.evidence-0\n") for note in notes)
    said = list(commits_after(store.files, NAME, -1))
    assert [commit.previous is None for commit in said] == [True, False]


def test_a_flush_of_two_days_is_one_commit_with_a_file_for_each(tmp_path):
    """Each file holds one day, in offset order, even when days come back; all of them count at once."""
    late = list(stories(3, begin=datetime(2026, 3, 1, 23, 50, tzinfo=UTC)))
    early = list(stories(3, begin=datetime(2026, 3, 2, 0, 10, tzinfo=UTC)))
    events = late[:4] + early[:2] + late[4:6] + early[2:4]
    with local_store(tmp_path).open(*LOG) as writer:
        commit = writer.append(rows(events), end=11).commit
    assert [added.leaves for added in commit.add] == [((0, 3), (6, 7)), ((4, 5), (8, 9))]
    for added in commit.add:
        table = pq.read_table(tmp_path / added.path)
        assert {moment.date() for moment in table["occurred_at"].to_pylist()} == {events_file(added.path).day}
        offsets = table["log_offset"].to_pylist()
        assert offsets == sorted(offsets)


def test_rejected_records_alone_make_a_commit_without_a_file(tmp_path):
    """Offsets of rejected records count as stored, so that they are not rejected again after a restart."""
    store = local_store(tmp_path)
    with store.open(*LOG) as writer:
        written = writer.append(EVENTS_SCHEMA.empty_table(), end=4, rejected=range(5))
    assert (written.rows, written.commit.add, store.resume(*LOG)) == (0, (), 5)


def test_lost_offsets_are_said_to_be_lost(tmp_path):
    """A commit names the offsets that the topic held no more."""
    with local_store(tmp_path).open(*LOG) as writer:
        commit = writer.append(EVENTS_SCHEMA.empty_table(), end=99, lost=((3, 99),)).commit
    assert commit.lost == (Lost(((3, 99),), "expired"),)


def test_parquet_metadata_says_where_the_rows_come_from(tmp_path):
    """A file that was copied away still says log, topic, partition, offsets and version."""
    with local_store(tmp_path).open(*LOG) as writer:
        (added,) = writer.append(rows(EVENTS[:2]), end=99).commit.add
    about = pq.read_schema(tmp_path / added.path).metadata
    assert about[b"waybill.log_id"] == b"cluster"
    assert about[b"waybill.topic"] == b"ai.evidence"
    assert (about[b"waybill.first"], about[b"waybill.last"]) == (b"0", b"99")
    assert b"waybill.evidence_version" in about


def test_logs_and_partitions_do_not_mix(tmp_path):
    """A new broker on an old address, another partition, and a topic with a similar name begin anew."""
    store = local_store(tmp_path)
    with store.open(*LOG) as writer:
        writer.append(rows(EVENTS[:1]), end=9)
    assert store.resume("cluster-2", "ai.evidence", 0) is None
    assert store.resume("cluster", "ai.evidence", 1) is None
    assert store.resume("cluster", "ai.evidence-0", 0) is None


def test_what_a_dead_writer_left_is_removed_by_the_log_s_next_one_only(tmp_path):
    """A file in no commit goes with the next claim of its own log; files of other logs stay."""
    store = local_store(tmp_path)
    with store.open(*LOG) as writer:
        (added,) = writer.append(rows(EVENTS[:1]), end=9).commit.add
    there = tmp_path / added.path
    own = there.with_name(there.name.replace("-0000000000000000", "-1111111111111111"))
    other = there.with_name(there.name.replace("ai.evidence-0-", "ai.evidence-10-"))
    for path in (own, other):
        path.write_bytes(b"half")
    time.sleep(0.02)
    store.open(*LOG).close()
    assert (own.exists(), other.exists(), there.exists()) == (False, True, True)


def test_a_second_writer_waits_then_fails_and_names_the_holder(tmp_path, request):
    """Two processes cannot write one log: the second is told who holds it."""
    program = (
        "import sys, time, pathlib\nfrom evidence_stores import local_store\n"
        "w = local_store(pathlib.Path(sys.argv[1])).open('cluster', 'ai.evidence', 0)\n"
        "print('held', flush=True)\ntime.sleep(60)\n"
    )
    environment = {"PYTHONPATH": f"{request.config.rootpath}:{request.config.rootpath}/tests/support"}
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout.readline() == b"held\n"
        begun = time.monotonic()
        with pytest.raises(StoreError, match=f"held by process {holder.pid}"):
            local_store(tmp_path, lock_wait_s=0.3).open(*LOG)
        assert time.monotonic() - begun >= 0.3
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    local_store(tmp_path, lock_wait_s=0).open(*LOG).close()


def test_a_second_writer_goes_on_when_the_first_ends(tmp_path):
    """Waiting for a lock ends as soon as it is free."""
    store = local_store(tmp_path, lock_wait_s=10)
    first = store.open(*LOG)
    timer = threading.Timer(0.1, first.close)
    timer.start()
    store.open(*LOG).close()
    timer.join()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logs: (logs / "commits/000000000001").unlink(), "commit 1 is missing"),
        (lambda logs: (logs / "commits/000000000003").write_bytes(b"nonsense"), "not a commit"),
        (lambda logs: (logs / "commits/other").write_bytes(b""), "is no commit"),
        (lambda logs: next(logs.glob("tile/0/*/*")).write_bytes(bytes(32 * 30)), "the tiles do not give the root"),
    ],
)
def test_a_log_that_was_changed_by_hand_is_not_written_to(tmp_path, change, message):
    """A missing or foreign commit, or a changed tile, is found when a log is opened, and the lock is given back."""
    store = local_store(tmp_path, lock_wait_s=0)
    with store.open(*LOG) as writer:
        for begin in (0, 10, 20):
            writer.append(rows(EVENTS[begin : begin + 10], first=begin), end=begin + 9)
    change(tmp_path / "logs" / NAME)
    for _ in range(2):
        with pytest.raises(StoreError, match=message):
            store.open(*LOG)


def test_rows_that_do_not_go_on_from_the_position_are_refused(tmp_path):
    """Storing an offset again, or beyond the end that is told, is refused before anything is written."""
    with local_store(tmp_path).open(*LOG) as writer:
        writer.append(rows(EVENTS[:8]), end=9)
        for first, end in ((3, 20), (12, 13), (10, 8)):
            with pytest.raises(StoreError, match="cannot be stored as offsets"):
                writer.append(rows(EVENTS[:8], first=first), end=end)
        with pytest.raises(StoreError, match="schema"):
            writer.append(pa.table({"log_offset": [10]}), end=20)
        assert writer.commit.number == 1
    with pytest.raises(StoreError, match="closed"):
        writer.append(rows(EVENTS[:8], first=10), end=20)


def test_a_store_of_another_site_is_not_written_to(tmp_path):
    """A site has a store of its own, and the error says so."""
    local_store(tmp_path, "home").open(*LOG).close()
    with pytest.raises(ConfigError, match="a site has a store of its own"):
        local_store(tmp_path, "edge").open(*LOG)


@pytest.mark.parametrize("site", ["", "../up", "a/b", ".hidden", "x" * 65, "a=b"])
def test_a_site_that_cannot_be_a_folder_is_refused(tmp_path, site):
    """A site's name never leads out of the store."""
    with pytest.raises(ConfigError, match="site"):
        local_store(tmp_path, site, keys=OneKey("home"))


@pytest.mark.parametrize(("log_id", "topic"), [("a.b", "t"), ("a/b", "t"), ("", "t"), ("a", "t/u"), ("a", "")])
def test_a_log_that_cannot_be_a_file_name_is_refused(log_id, topic):
    """Neither a log's id nor a topic's name can lead out of the folder or be misread."""
    with pytest.raises(ConfigError):
        LogPartition(log_id, topic, 0)


def test_a_change_of_files_must_add_up(tmp_path):
    """A commit that removes more rows than it adds and expires is refused, and nothing changes."""
    with local_store(tmp_path).open(*LOG) as writer:
        (added,) = writer.append(rows(EVENTS[:8]), end=9).commit.add
        with pytest.raises(StoreError, match="files of 8 rows would be replaced by 0"):
            writer.change(remove=(added.path,))
        assert writer.commit.number == 1
