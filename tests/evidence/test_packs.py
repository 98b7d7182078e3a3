"""Packs of commits: many small ones become one large one, and nobody who reads meanwhile misses a commit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from evidence_samples import NOON, stories
from evidence_stores import OneKey, local_store
from failing_files import FailingFiles
from store_life import LOG, NAME, rows

from evidence.errors import StoreError, UnavailableError
from evidence.federation.chain import commits as chain
from evidence.files.local import LocalFiles
from evidence.store.history import commits_after, merge_packs, newest, pack, packs, read_commit
from evidence.store.layout import commit_path, commits_folder, pack_path
from evidence.store.live import read_live
from evidence.store.upkeep import Upkeep
from evidence.verify.check import verify
from evidence.verify.source import LocalStore

EVENTS = list(stories(9))
AFTER = NOON.timestamp() + 86_400
LATER = 4_000_000_000.0
"""A moment at which every file is old."""
FAN = 4


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """A store with ten packs of two commits, and some commits by themselves."""
    with local_store(tmp_path, now=NOON.timestamp, snapshot_commits=2).open(*LOG) as writer:
        for place, event in enumerate(EVENTS[:24]):
            writer.append(rows([event], first=place), end=place)
        upkeep = Upkeep(LocalFiles(tmp_path), pack_commits=2, now=lambda: AFTER)
        for _ in range(10):
            upkeep._pack(NAME)
    there = LocalFiles(tmp_path)
    assert packs(there, NAME) == [(first, first + 1) for first in range(0, 20, 2)]
    return there


def names(files: LocalFiles) -> list[str]:
    """Give the files of commits."""
    return [entry.path.rpartition("/")[2] for entry in files.list(commits_folder(NAME))]


def read_all(files: LocalFiles) -> list[int]:
    """Give the numbers of all commits."""
    return [commit.number for commit in commits_after(files, NAME, -1)]


def check(files: LocalFiles) -> None:
    """See that every way to read the commits gives all of them, and that the checker finds nothing."""
    whole = list(range(25))
    assert newest(files, NAME) == 24
    assert read_all(files) == whole
    assert [noted.commit.number for noted in chain(files, NAME)] == whole
    for number in (-1, 0, 3, 7, 8, 19, 20, 24):
        assert [commit.number for commit in commits_after(files, NAME, number)] == whole[number + 1 :]
    assert [read_commit(files, NAME, number).commit.number for number in whole] == whole


def verified(files: LocalFiles) -> bool:
    """Say whether the checker finds nothing."""
    return verify(files.root, [OneKey("home").signer.vkey], jobs=1, pause_s=0).ok


def test_small_packs_become_one_and_go_after_a_while(files):
    """The large pack holds their bytes; they lie beside it for the grace time, and are deleted then."""
    before = b"".join(files.read(pack_path(NAME, first, first + 1)) for first in range(0, 8, 2))
    merge_packs(files, NAME, now=0.0, fan=FAN)
    assert files.read(pack_path(NAME, 0, 7)) == before
    assert packs(files, NAME)[:2] == [(0, 7), (8, 9)]
    assert f"{0:012d}-{1:012d}.pack" in names(files)
    check(files)
    assert verified(files)
    merge_packs(files, NAME, now=LATER, fan=FAN)
    assert [name for name in names(files) if name.startswith(f"{0:012d}-")] == [
        f"{0:012d}-{7:012d}.pack",
        f"{0:012d}-{13:012d}.pack",
    ]
    assert f"{6:012d}-{7:012d}.pack" not in names(files)
    check(files)
    assert verified(files)


def test_packs_are_merged_until_few_are_left(files):
    """Called again and again it ends, with fewer packs than make a large one."""
    for _ in range(20):
        merge_packs(files, NAME, now=LATER, fan=FAN)
        check(files)
    assert len(packs(files, NAME)) < FAN
    assert verified(files)
    once = names(files)
    merge_packs(files, NAME, now=LATER, fan=FAN)
    assert names(files) == once


def test_few_packs_stay_as_they_are(files):
    """Fewer small packs than make a large one are left alone."""
    before = names(files)
    merge_packs(files, NAME, now=LATER, fan=11)
    assert names(files) == before


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("at", range(1, 16))
def test_a_merge_that_fails_at_any_step_can_be_done_again(files, at, behind):
    """Wherever it stops every commit is there, and the next call ends as if nothing had been."""
    failing = FailingFiles(files, at, behind=behind)
    stopped = False
    try:
        for _ in range(2):
            merge_packs(failing, NAME, now=LATER, fan=FAN)
    except UnavailableError:
        stopped = True
    check(files)
    for _ in range(20):
        merge_packs(files, NAME, now=LATER, fan=FAN)
    check(files)
    assert len(packs(files, NAME)) < FAN
    assert stopped


def test_who_reads_while_packs_are_merged_misses_nothing(files):
    """Readers that start anew, and one that goes on, find all commits at every moment of it."""
    stop, failed, read = threading.Event(), [], [0]

    def reader() -> None:
        while not stop.is_set():
            found = read_all(files), newest(files, NAME), read_live(files, NAME).number
            read[0] += 1
            if found != (list(range(25)), 24, 24):
                failed.append(found)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        merge_packs(files, NAME, now=LATER, fan=FAN)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert read[0] > 0


@pytest.mark.parametrize("now", [0.0, LATER], ids=["at once", "later"])
def test_a_large_pack_that_holds_something_else_is_an_error(files, now):
    """Nothing is deleted for it, and the error says what finds out more."""
    files.replace(pack_path(NAME, 0, 19), b"something else")
    before = names(files)
    if now:
        with pytest.raises(StoreError, match="waybill verify"):
            merge_packs(files, NAME, now=now, fan=FAN)
    else:
        merge_packs(files, NAME, now=now, fan=FAN)
    assert names(files) == before


def test_a_damaged_small_pack_is_not_merged(files):
    """A pack with a commit too few stays by itself, for `verify` to name it."""
    whole = files.read(pack_path(NAME, 2, 3))
    files.replace(pack_path(NAME, 2, 3), whole[: whole.index(b"\n3 ") + 1] if b"\n3 " in whole else whole[:40])
    with pytest.raises(StoreError):
        merge_packs(files, NAME, now=LATER, fan=FAN)
    assert f"{0:012d}-{7:012d}.pack" not in names(files)


@pytest.mark.parametrize(("first", "last", "changed"), [(0, 7, 1), (2, 7, 3), (1, 4, 4)])
def test_the_checker_compares_packs_that_hold_the_same_commits(files, first, last, changed):
    """Readers take a commit from the widest pack: the checker reads that one too, whichever pack it begins with."""
    held = [(number, read_commit(files, NAME, number).note) for number in range(first, last + 1)]
    files.replace(pack_path(NAME, first, last), pack(held))
    assert verified(files)
    number, note = held[changed - first]
    held[changed - first] = (number, note.replace("— waybill/home ".encode(), "— waybill/hame ".encode()))
    files.replace(pack_path(NAME, first, last), pack(held))
    report = verify(files.root, [OneKey("home").signer.vkey], jobs=1, pause_s=0)
    assert commit_path(NAME, changed) in {finding.where for finding in report.findings}


def test_the_checker_reads_on_where_small_packs_were_deleted_meanwhile(files, monkeypatch):
    """A pack that goes away because a large one has its commits is no damage; a pack that no other covers is."""
    merge_packs(files, NAME, now=0.0, fan=FAN)
    whole = list(LocalStore(str(files.root)).list(""))
    monkeypatch.setattr(LocalStore, "list", lambda _, prefix: (item for item in whole if item.path.startswith(prefix)))
    files.delete(pack_path(NAME, 2, 3))
    assert verified(files)
    files.delete(pack_path(NAME, 0, 7))
    assert not verified(files)


def test_a_commit_that_is_missing_between_others_is_an_error(files):
    """Who reads the whole log is told, and does not take the gap for the end."""
    files.delete(commit_path(NAME, 22))
    with pytest.raises(StoreError, match="commit 22 is missing"):
        read_all(files)


def test_asking_for_news_lists_no_folder(files):
    """Where nothing has come, two reads are enough, however long the log is."""
    counted = FailingFiles(files)
    assert list(commits_after(counted, NAME, 24)) == []
    assert counted.names == ["read", "read"]
