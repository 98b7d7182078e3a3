"""Files of evidence: exact names, exact coverage, one writer."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import NOON, stories

from evidence.disk import Disk
from evidence.errors import ConfigError, StoreError, UnavailableError
from evidence.layout import EvidenceFile, LogPartition, check_contiguous
from evidence.parsing import parse
from evidence_stores import local_store

DAY = date(2026, 3, 1)
LOG = ("cluster-1", "ai.evidence", 0)


def table(events, *, first=0, step=1):
    """Give the rows of some events at offsets first, first + step and so on."""
    offsets = [first + number * step for number in range(len(events))]
    return parse([e.to_json() for e in events], partition=0, offsets=offsets, timestamps_ms=[0] * len(offsets)).table


def stored_ids(root):
    """Give every event id below the root."""
    files = sorted((root / "events").glob("site=*/date=*/*.parquet"))
    return [event_id for file in files for event_id in pq.read_table(file).column("event_id").to_pylist()]


def test_files_say_what_they_cover_and_join_without_a_gap(tmp_path):
    """A file starts where the one before ended, even where the log has offsets without records."""
    events = list(stories(20))
    store = local_store(tmp_path, "home")
    with store.open(*LOG, beginning=7) as writer:
        first = list(writer.append(table(events[:10], first=8, step=2), end=27, day=DAY))
        second = list(writer.append(table(events[10:20], first=40), end=49, day=DAY))
    assert [(w.file.start, w.file.end, w.rows) for w in first + second] == [(7, 27, 10), (28, 49, 10)]
    assert first[0].file.path == tmp_path / (
        "events/site=home/date=2026-03-01/cluster-1.ai.evidence-0-00000000000000000007-00000000000000000027.parquet"
    )
    assert store.resume(*LOG) == 50
    assert [file.start for file in store.coverage(*LOG)] == [7, 28]
    assert stored_ids(tmp_path) == [event.event_id for event in events[:20]]


def test_a_run_is_cut_where_the_day_changes(tmp_path):
    """Each file holds one day, in offset order, even when days come back."""
    late = list(stories(3, begin=datetime(2026, 3, 1, 23, 50, tzinfo=UTC)))
    early = list(stories(3, begin=datetime(2026, 3, 2, 0, 10, tzinfo=UTC)))
    events = late[:4] + early[:2] + late[4:6] + early[2:4]
    store = local_store(tmp_path, "home")
    with store.open(*LOG) as writer:
        written = list(writer.append(table(events), end=11, day=DAY))
    assert [(w.file.path.parent.name, w.file.start, w.file.end) for w in written] == [
        ("date=2026-03-01", 0, 3),
        ("date=2026-03-02", 4, 5),
        ("date=2026-03-01", 6, 7),
        ("date=2026-03-02", 8, 11),
    ]
    for w in written:
        days = {moment.date().isoformat() for moment in pq.read_table(w.file.path).column("occurred_at").to_pylist()}
        assert days == {w.file.path.parent.name.removeprefix("date=")}


def test_rejected_records_alone_are_covered_by_a_file_without_rows(tmp_path):
    """Offsets of rejected records count as stored, so that they are not rejected again after a restart."""
    store = local_store(tmp_path, "home")
    with store.open(*LOG) as writer:
        (written,) = writer.append(table([]), end=4, day=DAY)
    assert (written.rows, store.resume(*LOG)) == (0, 5)


def test_parquet_metadata_says_where_the_rows_come_from(tmp_path):
    """A file that was copied away still says log, topic, partition, offsets and version."""
    with local_store(tmp_path, "home").open(*LOG) as writer:
        (written,) = writer.append(table(list(stories(2))), end=99, day=DAY)
    about = pq.read_schema(written.file.path).metadata
    assert about[b"waybill.log_id"] == b"cluster-1"
    assert about[b"waybill.topic"] == b"ai.evidence"
    assert (about[b"waybill.start"], about[b"waybill.end"]) == (b"0", b"99")
    assert about[b"waybill.evidence_version"] == b"1.0"


def test_logs_and_partitions_do_not_mix(tmp_path):
    """A new broker on an old address, another partition, and a topic with a similar name begin anew."""
    store = local_store(tmp_path, "home")
    with store.open(*LOG) as writer:
        list(writer.append(table(list(stories(1))), end=9, day=DAY))
    assert store.resume("cluster-2", "ai.evidence", 0) is None
    assert store.resume("cluster-1", "ai.evidence", 1) is None
    assert store.resume("cluster-1", "ai.evidence-0", 0) is None


def test_leftovers_are_removed_by_the_partition_s_own_writer_only(tmp_path):
    """Opening a partition removes its temporary files and leaves those of others alone."""
    store = local_store(tmp_path, "home")
    with store.open(*LOG) as writer:
        list(writer.append(table(list(stories(1))), end=9, day=DAY))
    directory = tmp_path / "events/site=home/date=2026-03-01"
    own = directory / ".tmp-cluster-1.ai.evidence-0.part"
    others = [directory / ".tmp-cluster-1.ai.evidence-10.part", directory / ".tmp-cluster-1.ai.evidence-0-1.part"]
    for path in (own, *others):
        path.write_bytes(b"half")
    store.open(*LOG).close()
    assert not own.exists()
    assert all(path.exists() for path in others)


def test_a_second_writer_waits_then_fails_and_names_the_holder(tmp_path):
    """Two processes cannot write one partition: the second is told who holds it."""
    program = (
        "import sys, time, pathlib\nfrom evidence.store import EvidenceStore\n"
        "w = local_store(pathlib.Path(sys.argv[1]), 'home').open('cluster-1', 'ai.evidence', 0)\n"
        "print('held', flush=True)\ntime.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        begun = time.monotonic()
        with pytest.raises(StoreError, match=f"held by process {holder.pid}"):
            local_store(tmp_path, "home", lock_wait_s=0.3).open(*LOG)
        assert time.monotonic() - begun >= 0.3
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    local_store(tmp_path, "home", lock_wait_s=0).open(*LOG).close()


def test_a_second_writer_goes_on_when_the_first_ends(tmp_path):
    """Waiting for a lock ends as soon as it is free."""
    store = local_store(tmp_path, "home", lock_wait_s=10)
    first = store.open(*LOG)
    timer = threading.Timer(0.1, first.close)
    timer.start()
    store.open(*LOG).close()
    timer.join()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files[1].path.unlink(), "offsets 10 to 19 are missing between"),
        (
            lambda files: files[1].path.rename(str(files[1].path).replace("0019.parquet", "0021.parquet")),
            "offsets 20 to 21 are stored twice, in",
        ),
        (lambda files: (files[0].path.parent / "other.parquet").write_bytes(b""), "is not evidence of Waybill's"),
    ],
)
def test_a_store_that_was_changed_by_hand_is_not_written_to(tmp_path, change, message):
    """A gap, an overlap or a foreign file is found when a partition is opened, and the lock is given back."""
    store = local_store(tmp_path, "home", lock_wait_s=0)
    events = list(stories(9))[:30]
    with store.open(*LOG) as writer:
        for begin in (0, 10, 20):
            list(writer.append(table(events[begin : begin + 10], first=begin), end=begin + 9, day=DAY))
    change(store.coverage(*LOG))
    for _ in range(2):
        with pytest.raises(StoreError, match=message):
            store.open(*LOG)


def test_rows_that_do_not_go_on_from_the_position_are_refused(tmp_path):
    """Storing an offset again, or beyond the end that is told, is refused before anything is written."""
    events = list(stories(1))
    store = local_store(tmp_path, "home")
    with store.open(*LOG) as writer:
        list(writer.append(table(events), end=9, day=DAY))
        for first, end in ((3, 20), (12, 13)):
            with pytest.raises(StoreError, match="cannot be stored as offsets"):
                list(writer.append(table(events, first=first), end=end, day=DAY))
        with pytest.raises(StoreError, match="schema"):
            list(writer.append(pa.table({"log_offset": [10]}), end=20, day=DAY))
    with pytest.raises(StoreError, match="closed"):
        list(writer.append(table(events, first=10), end=20, day=DAY))


def test_an_existing_file_is_never_overwritten(tmp_path):
    """A file of the same name, put there by someone else, stays as it is and stops the writer."""
    events = list(stories(1))
    with local_store(tmp_path, "home").open(*LOG) as writer:
        (written,) = writer.append(table(events), end=9, day=DAY)
        other = written.file.path.with_name(written.file.path.name.replace("0-0000", "0-0000").replace("09.p", "19.p"))
        other = other.with_name(other.name.replace("0-00000000000000000000-", "0-00000000000000000010-"))
        other.write_bytes(b"someone else's")
        with pytest.raises(StoreError, match="is there already"):
            list(writer.append(table(events, first=10), end=19, day=DAY))
    assert other.read_bytes() == b"someone else's"


class FailingDisk(Disk):
    """Fails one step, or ends the process there."""

    def __init__(self, step, *, fail):
        self.step = step
        self.fail = fail
        self.done = 0
        self.names = []

    def _count(self, name):
        self.names.append(name)
        self.done += 1
        if self.done == self.step:
            self.fail()

    def make_directory(self, path):
        """Count the step, then do it."""
        self._count("make_directory")
        super().make_directory(path)

    def write(self, path, data):
        """Count the step, then do it."""
        self._count("write")
        if self.done == self.step - 1:
            super().write(path, data[: len(data) // 2])  # the next step never sees a whole file
            self._count("half written")
        super().write(path, data)

    def sync(self, path):
        """Count the step, then do it."""
        self._count("sync")
        super().sync(path)

    def publish(self, temporary, path):
        """Count the step, then do it."""
        self._count("publish")
        super().publish(temporary, path)

    def remove(self, path):
        """Count the step, then do it."""
        self._count("remove")
        super().remove(path)


def write_all(root, disk, events):
    """Store events in three flushes, from wherever the store says."""
    with local_store(root, "home", disk=disk).open(*LOG) as writer:
        for end in (9, 19, len(events) - 1):
            if writer.position <= end:
                rows = table(events[writer.position : end + 1], first=writer.position)
                list(writer.append(rows, end=end, day=DAY))


def two_days():
    """Give events of two days, so that one flush is more than one file."""
    return list(stories(2, begin=NOON)) + list(stories(3, begin=NOON + timedelta(days=1)))


def test_a_failure_at_any_step_loses_nothing_and_doubles_nothing(tmp_path):
    """Whichever file-system step fails, going on afterwards gives each event exactly once."""
    events = two_days()
    probe = FailingDisk(0, fail=lambda: None)
    write_all(tmp_path / "probe", probe, events)
    assert {"make_directory", "write", "sync", "publish", "remove"} == set(probe.names)

    def fail():
        raise OSError(28, "No space left on device", "x")

    for step in itertools.count(1):
        root, disk = tmp_path / str(step), FailingDisk(step, fail=fail)
        try:
            write_all(root, disk, events)
        except UnavailableError as error:
            assert "No space left" in str(error)  # noqa: PT017 - the loop ends where nothing fails any more
        else:
            break
        write_all(root, Disk(), events)
        assert sorted(stored_ids(root)) == sorted(event.event_id for event in events)
        assert not list(root.glob("events/*/*/.tmp-*"))
    assert step > len(probe.names)


CRASH = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[3])
from test_store import FailingDisk, two_days, write_all
for step in range(1, 500):
    child = os.fork()
    if child == 0:
        write_all(pathlib.Path(sys.argv[1]) / str(step), FailingDisk(step, fail=lambda: os._exit(7)), two_days())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        break
    assert code == 7, code
print(step)
"""


def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(tmp_path, request):
    """Whichever step the process dies at, a new process goes on and each event is stored exactly once."""
    support = str(request.config.rootpath / "tests/support")
    program = [sys.executable, "-c", CRASH, str(tmp_path), support, str(request.path.parent)]
    environment = {"PYTHONPATH": f"{request.config.rootpath}:{support}", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    steps = int(ended.stdout)
    assert steps > 20
    events = two_days()
    for step in range(1, steps):
        write_all(tmp_path / str(step), Disk(), events)
        assert sorted(stored_ids(tmp_path / str(step))) == sorted(event.event_id for event in events)


@pytest.mark.parametrize("site", ["", "../up", "a/b", ".hidden", "x" * 65, "a=b"])
def test_a_site_that_cannot_be_a_directory_is_refused(tmp_path, site):
    """A site's name never leads out of the evidence directory."""
    with pytest.raises(ConfigError, match="site"):
        local_store(tmp_path, site)


@pytest.mark.parametrize(("log_id", "topic"), [("a.b", "t"), ("a/b", "t"), ("", "t"), ("a", "t/u"), ("a", "")])
def test_a_log_that_cannot_be_a_file_name_is_refused(log_id, topic):
    """Neither a log's id nor a topic's name can lead out of the directory or be misread."""
    with pytest.raises(ConfigError):
        LogPartition(log_id, topic, 0)


def test_a_file_that_ends_before_it_starts_is_found(tmp_path):
    """A name that makes no sense stops the writer."""
    file = EvidenceFile(tmp_path / "x", LogPartition("a", "t", 0), start=5, end=4)
    with pytest.raises(StoreError, match="ends before it starts"):
        check_contiguous([file])
