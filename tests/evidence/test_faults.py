"""Faults at every step of a store's life: nothing is lost, nothing is there twice, and the proof holds."""

from __future__ import annotations

import itertools
import os

import pytest
from failing_disk import FailingDisk, die, full
from failing_files import FailingFiles
from store_life import EVENTS, KEPT, LATER, LOG, NAME, live_ids, live_on, rows

from evidence.errors import RetryableError, UnavailableError
from evidence.files.local import LocalFiles
from evidence.files.s3 import S3Files
from evidence.log.keys import KeyRing
from evidence.store.history import commits_after
from evidence.store.site import EvidenceStore
from evidence.verify.check import verify
from waybill.cli.stores import copied

SOME = 13
"""Every how many-th step is tried in the ordinary run; the long one tries each."""


def ring_at(folder, disk=None):
    """Give the site's keys; the first one is made where it is missing."""
    if not any(folder.glob("*.pem")):
        return KeyRing.create(folder, "home", disk=disk)
    return KeyRing(folder, "home", disk=disk)


def live(home, disk=None, keys=None, wrap=lambda files: files):
    """Live the whole life in a folder, or what is left of it."""
    ring = ring_at(home / "keys", keys)
    files = wrap(LocalFiles(home / "evidence", disk))
    live_on(EvidenceStore(files, "home", ring, now=lambda: LATER, snapshot_commits=4), ring)


def check(home):
    """See that what should be there is there once, and that a stranger with a public key agrees."""
    files = LocalFiles(home / "evidence")
    assert sorted(live_ids(files)) == KEPT
    last = list(commits_after(files, NAME, -1))[-1]
    assert (last.size, last.next) == (len(EVENTS), len(EVENTS))
    report = verify(home / "evidence", KeyRing(home / "keys", "home").vkeys[:1], jobs=1, pause_s=0)
    assert report.ok, report.findings[:3]


def count(tmp_path):
    """Count the disk's steps of a life, and those of its keys."""
    disk, keys = FailingDisk(), FailingDisk(private=True)
    live(tmp_path / "probe", disk, keys)
    check(tmp_path / "probe")
    assert {"make_directory", "write", "sync", "publish", "replace", "read", "entries", "remove"} <= set(disk.names)
    return len(disk.names), len(keys.names)


def fail_at(home, step, steps):
    """Fail a step of the disk, or of the keys' disk."""
    disk = FailingDisk(step, full)
    keys = FailingDisk(step - steps, full, private=True)
    with pytest.raises(UnavailableError, match="No space left on device"):
        live(home, disk, keys)


def die_at(home, step, steps):
    """End a process at a step."""
    child = os.fork()
    if child == 0:
        try:
            live(home, FailingDisk(step, die), FailingDisk(step - steps, die, private=True))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7, step


EVERY = [pytest.param(SOME, id="some"), pytest.param(1, id="each", marks=pytest.mark.soak)]


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("fault", [fail_at, die_at])
def test_a_fault_at_a_step_of_the_disk_costs_nothing(tmp_path, fault, every):
    """A full disk, or kill -9, at a step of flush, rotation, compaction, retention or packing: going on mends it."""
    steps, of_keys = count(tmp_path)
    for step in range(1, steps + of_keys + 1, every):
        home = tmp_path / str(step)
        fault(home, step, steps)
        live(home)
        check(home)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("behind", [False, True], ids=["not-done", "answer-lost"])
def test_a_fault_at_a_call_of_the_store_s_place_costs_nothing(tmp_path, behind, every):
    """A call that is not done, or that is done while its answer is lost: the next writer finds out which."""
    made = []
    live(tmp_path / "probe", wrap=lambda files: made.append(FailingFiles(files)) or made[0])
    for call in range(1, len(made[0].names) + 1, every):
        home = tmp_path / str(call)
        with pytest.raises(RetryableError):
            live(home, wrap=lambda files, call=call: FailingFiles(files, call, behind=behind))
        live(home)
        check(home)


@pytest.mark.parametrize("every", [pytest.param(29, id="some"), pytest.param(1, id="each", marks=pytest.mark.soak)])
@pytest.mark.parametrize("behind", [False, True], ids=["not-done", "answer-lost"])
def test_a_fault_at_a_request_to_a_bucket_costs_nothing(tmp_path, bucket, behind, every):
    """Over S3: a request that is not done, or whose answer is lost, in any step of the life; a copy proves the rest."""

    def lives(place, at=0):
        ring = ring_at(tmp_path / place / "keys")
        files = FailingFiles(S3Files(f"{bucket.url}/{place}", endpoint=bucket.endpoint), at, behind=behind)
        if at:
            with pytest.raises(RetryableError):
                live_on(EvidenceStore(files, "home", ring, now=lambda: LATER, snapshot_commits=4), ring)
            files = files.files
        live_on(EvidenceStore(files, "home", ring, now=lambda: LATER, snapshot_commits=4), ring)
        return files

    calls = len(lives("probe").names)
    for call in range(1, calls + 1, every):
        files = lives(str(call), call)
        copied(files, tmp_path / str(call) / "evidence", lambda done, total: None)  # noqa: ARG005 - nobody watches
        check(tmp_path / str(call))


def test_a_read_only_disk_is_told_and_changes_nothing(tmp_path):
    """Where nothing can be written, opening fails with a retryable error that names the place."""

    def read_only():
        raise OSError(30, "Read-only file system", "x")

    for step in itertools.count(1):
        disk = FailingDisk(step, read_only)
        if disk.at > 30:
            break
        with pytest.raises(UnavailableError, match="Read-only file system"):
            live(tmp_path / str(step), disk)


def test_a_clock_that_goes_backwards_unsays_nothing(tmp_path):
    """Each commit is at least as late as the one before, whatever the clock says, and the proof holds."""
    moments = iter([LATER, LATER - 86_400, LATER - 2 * 86_400, LATER + 5, *[LATER - 7] * 20])
    ring = ring_at(tmp_path / "keys")
    with EvidenceStore(LocalFiles(tmp_path / "evidence"), "home", ring, now=lambda: next(moments)).open(*LOG) as writer:
        for begin in range(0, len(EVENTS), 13):
            writer.append(rows(EVENTS[begin : begin + 13], first=begin), end=begin + 12)
    times = [commit.time for commit in commits_after(LocalFiles(tmp_path / "evidence"), NAME, -1)]
    assert times == sorted(times)
    assert verify(tmp_path / "evidence", ring.vkeys, jobs=1, pause_s=0).ok


def test_a_predecessor_that_still_lives_is_fenced(tmp_path):
    """Who takes a log over commits first: the one before cannot commit any more, and no row is there twice."""

    class NoLock:
        def release(self):
            """Nothing is held."""

    class Bucket(LocalFiles):
        def lock(self, name, wait_s):  # noqa: ARG002 - the seam's
            return NoLock()

    ring = ring_at(tmp_path / "keys")
    stores = [EvidenceStore(Bucket(tmp_path / "evidence"), "home", ring) for _ in range(2)]
    first = stores[0].open(*LOG)
    first.append(rows(EVENTS[:10]), end=9)
    second = stores[1].open(*LOG)
    with pytest.raises(RetryableError, match="another writer made commit 2"):
        first.append(rows(EVENTS[10:20], first=10), end=19)
    second.append(rows(EVENTS[10:30], first=10), end=29)
    again = stores[0].open(*LOG)
    with pytest.raises(RetryableError, match="another writer made commit"):
        second.append(rows(EVENTS[30:], first=30), end=len(EVENTS) - 1)
    again.append(rows(EVENTS[30:], first=30), end=len(EVENTS) - 1)
    assert sorted(live_ids(again._with.files)) == sorted(event.event_id for event in EVENTS)
    assert verify(tmp_path / "evidence", ring.vkeys, jobs=1, pause_s=0).ok
