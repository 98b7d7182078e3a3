"""Every way of tampering with a store that we could think of: each is found, and named."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from plain_store import (
    NOON,
    OWN,
    STRANGER,
    WITNESS,
    PlainFile,
    PlainLog,
    canonical,
    leaf,
    parquet,
    rich,
    signed,
    stories,
    told,
)

from evidence.verify import Finding, Report, verify

Tamper = Callable[[PlainLog], dict[str, Any] | None]


@dataclass(frozen=True)
class Case:
    """A way of tampering, and what must be said of it."""

    name: str
    kind: str
    says: str
    act: Tamper


CASES: list[Case] = []


def case(kind: str, says: str) -> Callable[[Tamper], Tamper]:
    """Register a way of tampering: the finding's kind, and words that it must hold."""

    def register(act: Tamper) -> Tamper:
        CASES.append(Case(act.__name__, kind, says, act))
        return act

    return register


def checked(root: Path, **more: Any) -> Report:
    """Check a store with the keys that its owner published."""
    return verify(root, [OWN.verifier], **({"witnesses": [WITNESS.verifier], "pause_s": 0, "jobs": 1} | more))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> PlainLog:
    """Give a good store, which stays as it is."""
    return rich(tmp_path_factory.mktemp("pristine") / "store")[0]


@pytest.fixture
def log(pristine: PlainLog, tmp_path: Path) -> PlainLog:
    """Give a copy of the good store, to be tampered with."""
    shutil.copytree(pristine.root, tmp_path / "store")
    return pristine.moved(tmp_path / "store")


def newest(log: PlainLog) -> int:
    """Give the number of the newest commit."""
    return len(log.commits) - 1


def a_file(log: PlainLog, place: int = -1) -> PlainFile:
    """Give a live file."""
    return list(log.live.values())[place]


def put(log: PlainLog, file: PlainFile, data: bytes) -> None:
    """Write other bytes in a file's place."""
    (log.root / file.path).write_bytes(data)


def forged(log: PlainLog, rows: list[dict[str, Any]], file: PlainFile, *signers: Any) -> PlainFile:
    """Put other rows into a file's place and make the commit that added it, the newest such one, say so."""
    number = next(n for n in reversed(range(len(log.commits))) if f"add {file.path} " in log.text(n))
    (log.root / file.path).unlink()
    made = log.file(rows, file.leaves, day=file.rows[0]["occurred_at"].date())
    made.leaves = file.leaves
    log.edit(number, lambda text: text.replace(file.line, made.line), *signers)
    log.chain_anew(number + 1, *signers)
    cosigned_anew(log)
    (log.home / "live" / f"{newest(log):012d}.json").unlink(missing_ok=True)
    packs(log)
    return made


def packs(log: PlainLog) -> None:
    """Write the packs anew."""
    for old in (log.home / "commits").glob("*.pack"):
        old.unlink()
    for number, data in enumerate(log.commits):
        log.write(log.commit_path(number), data)


def cosigned_anew(log: PlainLog) -> None:
    """Let the witness sign the forged commit (it keeps no memory in this test)."""
    log.cosign(newest(log))


# Files


@case("file-changed", "is not the file that was committed")
def one_byte_of_a_data_file_is_changed(log: PlainLog) -> None:
    """A byte is flipped."""
    file = a_file(log)
    put(log, file, file.data[:100] + bytes([file.data[100] ^ 1]) + file.data[101:])


@case("file-changed", "is not the file that was committed")
def a_data_file_is_truncated(log: PlainLog) -> None:
    """The end of a file is cut off."""
    put(log, a_file(log), a_file(log).data[:-1])


@case("file-changed", "is not the file that was committed: 0 bytes")
def a_data_file_is_emptied(log: PlainLog) -> None:
    """A file is there and holds nothing."""
    put(log, a_file(log), b"")


@case("file-changed", "is not the file that was committed")
def a_typed_column_is_changed_in_the_file_alone(log: PlainLog) -> None:
    """A cost is changed in good Parquet."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    rows[1]["usage"] = {**rows[1]["usage"], "cost_usd": 0.0}
    put(log, file, parquet(rows))


@case("file-changed", "is not the file that was committed")
def two_data_files_are_swapped(log: PlainLog) -> None:
    """Each file has the other's name."""
    put(log, a_file(log, 0), a_file(log, 1).data)
    put(log, a_file(log, 1), a_file(log, 0).data)


@case("file-missing", "this live file is missing")
def a_data_file_is_missing(log: PlainLog) -> None:
    """A live file is deleted."""
    (log.root / a_file(log).path).unlink()


@case("file-missing", "this live file is missing")
def a_data_file_is_renamed(log: PlainLog) -> None:
    """A live file gets another name of the same form."""
    path = log.root / a_file(log).path
    path.rename(path.with_name(path.name.replace(path.name[-16:-8], "00000000")))


@case("file-missing", "this live file is missing")
def a_data_file_is_moved_to_another_day(log: PlainLog) -> None:
    """A live file lies in another day's folder."""
    path = log.root / a_file(log).path
    other = path.parent.parent / "date=2026-11-30"
    other.mkdir()
    path.rename(other / path.name)


@case("unlisted-file", "no commit ever added this file")
def a_data_file_is_duplicated(log: PlainLog) -> None:
    """The same rows lie there a second time, in another day's folder."""
    path = log.root / a_file(log).path
    other = path.parent.parent / "date=2026-11-30"
    other.mkdir()
    shutil.copy(path, other / path.name)


@case("unlisted-file", "no commit ever added this file")
def a_data_file_is_slipped_in(log: PlainLog) -> None:
    """A file with made-up rows and a good name is put beside the others."""
    log.file(log.place(told(999, NOON)), [0])


@case("unlisted-file", "there is no log")
def a_data_file_of_an_unknown_log_is_slipped_in(log: PlainLog) -> None:
    """A file bears the name of a log that does not exist."""
    path = log.root / a_file(log).path
    shutil.copy(path, path.with_name(path.name.replace(log.log_id, "nobody")))


@case("unknown-file", "no file of evidence is called so")
def a_file_with_a_strange_name_lies_among_the_data(log: PlainLog) -> None:
    """A reader that takes every Parquet file would read it."""
    path = log.root / a_file(log).path
    shutil.copy(path, path.with_name("more.parquet"))


@case("odd-file", "a link, where only plain files belong")
def a_data_file_is_a_link(log: PlainLog) -> None:
    """The file's bytes lie elsewhere, under somebody's control."""
    path = log.root / a_file(log).path
    path.rename(log.root.parent / "elsewhere")
    path.symlink_to(log.root.parent / "elsewhere")


@case("file-unreadable", "no plain file")
def a_data_file_is_a_folder(log: PlainLog) -> None:
    """A folder has the file's name."""
    path = log.root / a_file(log).path
    path.unlink()
    path.mkdir()


@case("odd-file", "no plain file, where only plain files belong")
def a_commit_is_a_pipe(log: PlainLog) -> None:
    """Reading it would never end."""
    path = log.commit_path(newest(log))
    path.unlink()
    os.mkfifo(path)


@case("file-changed", "and later removed")
def a_removed_file_that_still_lies_there_is_changed(log: PlainLog) -> None:
    """Compaction left its input for a while."""
    gone = sorted(set(log.root.glob("events/*/*/*.parquet")) - {log.root / path for path in log.live})
    mine = next(path for path in gone if path.name.startswith(log.folder))
    mine.write_bytes(mine.read_bytes() + b"x")


# Rows, by somebody who cannot sign


@case("signature", "is not good for this text")
def a_row_is_changed_and_the_commit_made_anew_but_not_signed(log: PlainLog) -> None:
    """File, hash and commit agree; the signature is the old one."""
    file, number = a_file(log), newest(log) - 1
    rows = [{**row} for row in file.rows]
    rows[3]["output_bytes"] = 0
    (log.root / file.path).unlink()
    made = log.file(rows, file.leaves)
    log.keep_signature(number, lambda text: text.replace(file.line, made.line))
    log.chain_anew(number + 1)


@case("unsigned", "is not signed by waybill/home+")
def a_row_is_changed_and_the_commit_signed_by_another_key(log: PlainLog) -> None:
    """The forger signs with a key of the same name."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    rows[3]["output_bytes"] = 0
    forged(log, rows, file, STRANGER)


# Rows, by somebody who holds the signing key


@case("row-changed", "is not the row that was committed")
def an_insider_changes_a_row_in_compaction(log: PlainLog) -> None:
    """The compacted file holds another outcome, well signed."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    rows[5]["purpose"] = "marketing"
    forged(log, rows, file)


@case("row-changed", "offset")
def an_insider_swaps_two_rows_contents(log: PlainLog) -> None:
    """Two events keep their offsets and exchange all else."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    one, other = rows[2], rows[7]
    rows[2] = {**other, "log_offset": one["log_offset"]}
    rows[7] = {**one, "log_offset": other["log_offset"]}
    forged(log, rows, file)


@case("row-changed", "request req-")
def an_insider_adds_a_value_where_there_was_none(log: PlainLog) -> None:
    """A null becomes a value: the row gains a member."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    rows[0]["output_bytes"] = 0
    forged(log, rows, file)


@case("row-changed", "is not the row that was committed")
def an_insider_empties_a_list(log: PlainLog) -> None:
    """An absent list and an empty one are not the same."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    rows[next(n for n, row in enumerate(rows) if row.get("fallbacks") == ["hosted-eu"])]["fallbacks"] = []
    forged(log, rows, file)


@case("row-changed", "is not the row that was committed")
def an_insider_changes_the_logs_own_time(log: PlainLog) -> None:
    """The broker's time of a record is covered too."""
    file = a_file(log)
    rows = [{**row} for row in file.rows]
    rows[0]["log_timestamp"] += timedelta(milliseconds=1)
    forged(log, rows, file)


@case("row-repeated", "twice")
def an_insider_repeats_a_row(log: PlainLog) -> None:
    """A row stands in another one's place."""
    file = a_file(log)
    rows = [*file.rows[:4], file.rows[3], *file.rows[5:]]
    forged(log, rows, file)


@case("file-wrong", "rows, committed were")
def an_insider_drops_a_row_from_the_file_alone(log: PlainLog) -> None:
    """The commit says as many rows as before."""
    file = a_file(log)
    made = log.file(file.rows[1:], file.leaves)
    line = made.line.split(" ")
    line[2] = str(len(file.rows))
    number = newest(log) - 1
    (log.root / file.path).unlink()
    log.edit(number, lambda text: text.replace(file.line, " ".join(line)))
    log.chain_anew(number + 1)
    cosigned_anew(log)


@case("leaves", "are not the rows of the files that it removes")
def an_insider_drops_a_row_and_its_leaf_in_compaction(log: PlainLog) -> None:
    """The compacted file has one row fewer, and says so."""
    file = a_file(log)
    number = newest(log) - 1
    (log.root / file.path).unlink()
    made = log.file(file.rows[1:], file.leaves)
    gone = file.rows[0]["log_offset"] - min(row["log_offset"] for row in file.rows)
    made.leaves = [number for place, number in enumerate(file.leaves) if place != gone]
    log.edit(number, lambda text: text.replace(file.line, made.line))
    log.chain_anew(number + 1)
    cosigned_anew(log)


@case("root", "do not give the root that is signed")
def an_insider_changes_a_row_and_its_leaf(log: PlainLog) -> None:
    """File and tile agree; the roots that were signed earlier do not."""
    file = a_file(log)
    rows = sorted(({**row} for row in file.rows), key=lambda row: row["log_offset"])
    rows[0]["purpose"] = "marketing"
    log.leaves[file.leaves[0]] = leaf(canonical(rows[0]))
    shutil.rmtree(log.home / "tile")
    log.tiles()
    forged(log, rows, file)


@case("story-gap", "is missing between the offsets")
def an_insider_never_writes_a_requests_middle(log: PlainLog) -> None:
    """An event was left out before it was ever committed."""
    log.append([row for row in told(500, log.now) if row["sequence"] != 2])
    cosigned_anew(log)


@case("never-ended", "request req-00501")
def an_insider_never_writes_a_requests_end(log: PlainLog) -> None:
    """The last event was left out, and the deadline has passed."""
    log.append(told(501, log.now)[:-1])
    log.now += timedelta(hours=2)
    log.say()
    cosigned_anew(log)


@case("story-start", "begins with event 1")
def an_insider_never_writes_a_requests_beginning(log: PlainLog) -> None:
    """The first event was left out."""
    log.append(told(502, log.now)[1:])
    cosigned_anew(log)


@case("story-start", "does not begin with request.admitted")
def a_story_begins_with_something_else(log: PlainLog) -> None:
    """An intake that was never admitted reaches a model."""
    rows = told(503, log.now)
    rows[0]["event_type"] = "model.intended"
    log.append(rows)
    cosigned_anew(log)


@case("story-repeated", "event 0 stands twice, at the offsets")
def a_whole_story_is_replayed(log: PlainLog) -> None:
    """The same events are committed again, at new offsets."""
    log.append(told(3, NOON + timedelta(seconds=3)))
    cosigned_anew(log)


@case("story-repeated", "stands twice, at the offsets")
def an_event_is_replayed_within_its_story(log: PlainLog) -> None:
    """One event stands twice."""
    rows = told(504, log.now)
    log.append([*rows[:2], rows[1], *rows[2:]])
    cosigned_anew(log)


@case("story-order", "stands behind event")
def events_of_a_story_are_out_of_order(log: PlainLog) -> None:
    """Two events of a request are exchanged."""
    rows = told(505, log.now)
    log.append([rows[0], rows[2], rows[1], rows[3]])
    cosigned_anew(log)


@case("story-after-end", "stands behind its end")
def an_event_stands_behind_the_end(log: PlainLog) -> None:
    """A request goes on after it was ended."""
    rows = told(506, log.now)
    rows[1]["event_type"] = "request.ended"
    log.append(rows)
    cosigned_anew(log)


@case("file-wrong", "a row of another day")
def an_insider_moves_a_row_to_another_day(log: PlainLog) -> None:
    """A row lies in a folder of a day that is not its own."""
    rows = log.place(told(507, log.now))
    begin = len(log.leaves)
    log.leaves += [leaf(canonical(row)) for row in rows]
    made = log.file(rows, range(begin, begin + len(rows)), day=(NOON + timedelta(days=9)).date())
    log.tiles()
    log.say(made.line)
    cosigned_anew(log)


@case("file-wrong", "a row of partition 1 in a log of 0")
def an_insider_puts_another_partitions_row_into_the_log(log: PlainLog) -> None:
    """A row says that it is of another partition."""
    rows = [{**row, "log_partition": 1} for row in log.place(told(508, log.now))]
    begin = len(log.leaves)
    log.leaves += [leaf(canonical(row)) for row in rows]
    made = log.file(rows, range(begin, begin + len(rows)))
    log.tiles()
    log.say(made.line)
    cosigned_anew(log)


@case("offsets", "outside the window")
def an_insider_commits_a_row_of_an_older_offset(log: PlainLog) -> None:
    """A row's offset lies before the commit's window."""
    rows = log.place(told(509, log.now))
    rows[0]["log_offset"] = 3
    begin = len(log.leaves)
    log.leaves += [leaf(canonical(row)) for row in rows]
    made = log.file(rows, range(begin, begin + len(rows)))
    log.tiles()
    log.say(made.line)
    cosigned_anew(log)


@case("offsets", "which was rejected or lost")
def an_offset_is_both_a_row_and_rejected(log: PlainLog) -> None:
    """The dead letters and the table cannot both have it."""
    log.append(told(510, log.now), f"rejected {log.offset + 1}")
    cosigned_anew(log)


@case("leaves", "but its files hold the leaves")
def an_insider_grows_the_tree_without_rows(log: PlainLog) -> None:
    """Leaves that no file holds."""
    log.leaves.append(leaf(b"{}"))
    log.tiles()
    log.say()
    cosigned_anew(log)


@case("leaves", "gives a leaf to two files")
def a_leaf_is_live_and_expired(log: PlainLog) -> None:
    """A row is said to be removed for ever, and is still there."""
    file = a_file(log)
    new = log.file(file.rows[:-1] + file.rows[-1:], file.leaves, data=parquet(list(reversed(file.rows))))
    log.swap([file], [new], f"expire {file.leaves[0]} max-90d")
    cosigned_anew(log)


# Commits


@case("commit-missing", "this commit is missing")
def a_commit_in_the_middle_is_removed(log: PlainLog) -> None:
    """A loose commit goes."""
    log.commit_path(newest(log) - 3).unlink()


@case("cut-off", "commits were cut off")
def commits_at_the_end_are_removed(log: PlainLog) -> dict[str, Any]:
    """The store is as it was an hour ago; the auditor kept the newer commit."""
    kept = log.commits[-1]
    for path in (log.commit_path(newest(log)), log.home / "live" / f"{newest(log):012d}.json"):
        path.unlink()
    shutil.rmtree(log.home / "witness")
    return {"since": kept, "witnesses": []}


@case("cut-off", "rows were cut off at the end")
def the_store_is_rolled_back_to_an_earlier_state(log: PlainLog) -> dict[str, Any]:
    """A good, older store stands in the newer one's place."""
    log.append(stories(600, 3, log.now))
    kept = log.commits.pop()
    log.commit_path(len(log.commits)).unlink()
    log.leaves = log.leaves[:-12]
    shutil.rmtree(log.home / "tile")
    log.tiles()
    (log.root / a_file(log).path).unlink()
    return {"since": kept}


@case("rewritten", "is another one than the commit that was kept")
def the_whole_log_is_written_anew_from_a_commit_on(log: PlainLog) -> dict[str, Any]:
    """The insider signs a new history; the auditor kept an old commit."""
    kept = log.commits[-3]
    log.edit(7, lambda text: text.replace(" 6f1c2a9be07d4410", " 6f1c2a9be07d4411"))
    log.chain_anew(8)
    packs(log)
    cosigned_anew(log)
    return {"since": kept}


@case("rewritten", "signs another root for")
def a_plain_checkpoint_of_another_history_was_kept(log: PlainLog) -> dict[str, Any]:
    """The kept note is only a checkpoint: origin, size, root."""
    root = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    return {"since": signed(f"{log.origin}\n{len(log.leaves)}\n{root}\n", OWN)}


@case("root", "do not give the root that is signed for 77 rows")
def a_checkpoint_between_two_commits_does_not_fit(log: PlainLog) -> dict[str, Any]:
    """A size at which the log has no commit is folded too."""
    root = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    return {"since": signed(f"{log.origin}\n77\n{root}\n", OWN)}


@case("since-unsigned", "is not signed by any key of this log")
def the_kept_checkpoint_is_nobodys(log: PlainLog) -> dict[str, Any]:
    """A note that the log's keys never signed proves nothing."""
    return {"since": signed(log.text(newest(log)), STRANGER)}


@case("commit-number", "says that it is commit")
def two_commits_are_exchanged(log: PlainLog) -> None:
    """Each lies under the other's number."""
    one, other = log.commit_path(newest(log)), log.commit_path(newest(log) - 1)
    one_data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(one_data)


@case("commit-number", "says that it is commit")
def a_commit_is_replayed_under_the_next_number(log: PlainLog) -> None:
    """The newest commit lies there twice."""
    log.write(log.commit_path(newest(log) + 1), log.commits[-1])


@case("signature", "is not good for this text")
def a_commit_is_edited(log: PlainLog) -> None:
    """Its time is moved by a second."""
    log.keep_signature(newest(log), lambda text: text.replace("12:00:14", "12:00:15"))


@case("previous-hash", "follows another commit")
def a_commit_is_edited_and_signed_and_what_follows_is_not(log: PlainLog) -> None:
    """The insider forgets the hash in the next commit."""
    log.edit(newest(log) - 1, lambda text: text.replace("partitions 2", "partitions 3"))


@case("forked", "the log is forked")
def the_log_is_forked(log: PlainLog) -> None:
    """A commit lies there in two versions, one of them in a pack."""
    log.edit(6, lambda text: text.replace("12:00:07", "12:00:08"))


@case("forked", "the log is forked")
def a_pack_is_edited(log: PlainLog) -> None:
    """The pack's version is another than the loose one."""
    path = next((log.home / "commits").glob("*5-*6.pack"))
    path.write_bytes(path.read_bytes().replace(b"partitions 2", b"partitions 3"))


@case("signature", "is not good for this text")
def a_pack_of_commits_that_lie_nowhere_else_is_edited(log: PlainLog) -> None:
    """The changed commit has no second version to differ from."""
    path = next((log.home / "commits").glob("*0-*4.pack"))
    path.write_bytes(path.read_bytes().replace(b"partitions 2", b"partitions 3", 1))


@case("pack-broken", "the pack ends within commit")
def a_pack_is_truncated(log: PlainLog) -> None:
    """Its last bytes are gone."""
    path = next((log.home / "commits").glob("*0-*4.pack"))
    path.write_bytes(path.read_bytes()[:-5])


@case("pack-broken", "stands where")
def a_pack_leaves_a_commit_out(log: PlainLog) -> None:
    """A commit is cut out of the middle of a pack."""
    path = next((log.home / "commits").glob("*0-*4.pack"))
    path.write_bytes(b"".join(b"%d %d\n" % (n, len(log.commits[n])) + log.commits[n] for n in (0, 1, 3, 4)))


@case("time-backwards", "was made before commit")
def a_commits_time_goes_back(log: PlainLog) -> None:
    """A commit is dated before the one that it follows."""
    log.say(time="2026-11-24T12:00:00.000000Z")
    cosigned_anew(log)


@case("next-backwards", "goes back from")
def next_goes_back(log: PlainLog) -> None:
    """Offsets that were covered are not covered any more."""
    log.say(next=3)
    cosigned_anew(log)


@case("size", "the tree shrinks")
def the_tree_shrinks(log: PlainLog) -> None:
    """A commit says fewer rows than the one before."""
    log.say(size=len(log.leaves) - 1)
    cosigned_anew(log)


@case("root", "another root at the same size")
def the_root_changes_while_nothing_is_added(log: PlainLog) -> None:
    """An empty commit signs another root."""
    log.say(root=hashlib.sha256(b"other").digest())
    cosigned_anew(log)


@case("epoch", "two writers")
def a_second_writer_writes_in_the_same_epoch(log: PlainLog) -> None:
    """A writer that was fenced goes on."""
    log.say(writer=f"{log.epoch} somebody")
    cosigned_anew(log)


@case("epoch", "epoch 9 after 2")
def an_epoch_is_skipped(log: PlainLog) -> None:
    """A writer took over that never said so."""
    log.say(writer="9 somebody")
    cosigned_anew(log)


@case("partitions", "1 partitions, after 2")
def a_topics_partitions_become_fewer(log: PlainLog) -> None:
    """So that a log that was removed is not missed."""
    log.say(partitions=1)
    cosigned_anew(log)


@case("log-missing", "there is no log of number 1")
def the_log_of_a_partition_is_removed(log: PlainLog) -> None:
    """All of a partition's commits and files are gone."""
    name = log.folder[:-1] + "1"
    shutil.rmtree(log.root / "logs" / name)
    for path in log.root.glob(f"events/*/*/{name}-*"):
        path.unlink()


@case("commit-origin", "is of another log")
def a_commit_of_another_log_is_put_in(log: PlainLog) -> None:
    """The other partition's commit lies under this one's next number."""
    log.say(origin=log.origin[:-1] + "1")
    cosigned_anew(log)


@case("commit-malformed", "is of no known kind")
def a_commit_has_a_line_of_an_unknown_kind(log: PlainLog) -> None:
    """What a checker does not know it cannot check."""
    log.say("pardon everything")


@case("commit-malformed", "not ascending")
def a_commit_has_overlapping_ranges(log: PlainLog) -> None:
    """Ranges that say the same number twice."""
    log.say("rejected 5-9,7")


@case("commit-malformed", "is not a number")
def a_commit_has_an_absurd_number(log: PlainLog) -> None:
    """A number that would not fit into memory as a list."""
    log.say(next=10**30)


@case("commit-malformed", "control character")
def a_commit_holds_a_control_character(log: PlainLog) -> None:
    """A terminal would act on it."""
    log.write(log.commit_path(newest(log) + 1), log.commits[-1].replace(b"commit", b"\x1b[2J"))


@case("removed-not-live", "which is not live")
def a_file_is_removed_twice(log: PlainLog) -> None:
    """The second removal has nothing to remove."""
    gone = next(line for n in range(newest(log)) for line in log.text(n).splitlines() if line.startswith("remove "))
    log.say(gone)
    cosigned_anew(log)


@case("signature-unknown", "does not belong there")
def a_signature_of_a_stranger_is_added(log: PlainLog) -> None:
    """A line that no key of the log accounts for."""
    path = log.commit_path(newest(log))
    path.write_bytes(log.commits[-1] + STRANGER.line(log.text(newest(log))).encode())


# Keys and witnesses


@case("signature", "is not good for this text")
def a_change_of_keys_is_forged(log: PlainLog) -> None:
    """The thief names a key of their own; the old key's signature is of another text."""
    log.say(key=STRANGER)
    log.keep_signature(newest(log), lambda text: text.replace("partitions 2", "partitions 3"))
    log.say()
    log.cosign(newest(log))


@case("unsigned", "whose turn it is")
def a_change_of_keys_is_signed_by_the_new_key_alone(log: PlainLog) -> None:
    """The old key did not agree."""
    log.say(key=STRANGER)
    log.edit(newest(log), lambda text: text, STRANGER)
    cosigned_anew(log)


@case("unsigned", "whose turn it is")
def the_old_key_signs_after_the_change(log: PlainLog) -> None:
    """The key that was given up is used again."""
    log.signer = OWN
    log.say()
    cosigned_anew(log)


@case("key", "none of the keys that were given signed this log")
def everything_is_signed_by_a_stranger(log: PlainLog) -> None:
    """A whole store of somebody else's making."""
    for number in range(len(log.commits)):
        log.edit(number, lambda text: text, STRANGER)
    log.chain_anew(1, STRANGER)
    packs(log)
    cosigned_anew(log)


@case("witness", "is not good for this text")
def a_cosignature_is_forged(log: PlainLog) -> None:
    """The line names the witness; the signature is another's."""
    path = next((log.home / "witness").glob(f"*/{newest(log):012d}"))
    data = path.read_bytes()
    at = data.rindex(b" ") + 40
    path.write_bytes(data[:at] + (b"B" if data[at : at + 1] != b"B" else b"C") + data[at + 1 :])


@case("witness", "the witness signed another text")
def the_witness_saw_another_commit(log: PlainLog) -> None:
    """The log showed the witness another history."""
    real = log.commits[-1]
    log.edit(newest(log), lambda text: text.replace("partitions 2", "partitions 3"))
    log.cosign(newest(log))
    log.write(log.commit_path(newest(log)), real)


@case("witness-behind", "rows behind the newest")
def the_newest_rows_were_never_shown_to_the_witness(log: PlainLog) -> None:
    """The witness's signature lags."""
    log.say()
    log.append(stories(9000, 1))


@case("witness-absent", "cosigned no commit of this log")
def the_witness_notes_are_removed(log: PlainLog) -> None:
    """Not one is left."""
    shutil.rmtree(log.home / "witness")


@case("cut-off", "a witness signed commit")
def the_witness_saw_more_than_there_is(log: PlainLog) -> None:
    """Commits were cut off; the witness's notes of them were forgotten."""
    log.say()
    log.cosign(newest(log))
    log.commit_path(newest(log)).unlink()


# Tiles, snapshots, statements, and what else lies there


@case("root", "do not give the root that is signed")
def a_byte_of_a_tile_is_changed(log: PlainLog) -> None:
    """A leaf hash is another."""
    path = log.home / "tile/0/000"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@case("tile-missing", "this tile is missing")
def a_tile_is_missing(log: PlainLog) -> None:
    """A full tile is deleted."""
    (log.home / "tile/0/000").unlink()


@case("tile-missing", "this tile is missing")
def the_partial_tile_is_missing(log: PlainLog) -> None:
    """The newest leaves' tile is deleted."""
    next((log.home / "tile/0").glob("*.p/*")).unlink()


@case("root", "do not give the root that is signed")
def the_partial_tile_is_wrong(log: PlainLog) -> None:
    """The newest leaf hash is another."""
    path = next((log.home / "tile/0").glob("*.p/*"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@case("tile", "bytes, ")
def a_tile_is_too_long(log: PlainLog) -> None:
    """It holds one hash more than it may."""
    path = next((log.home / "tile/0").glob("*.p/*"))
    path.write_bytes(path.read_bytes() + bytes(32))


@case("tile", "is not what")
def a_tile_of_a_higher_level_is_changed(log: PlainLog) -> None:
    """The hash of a full tile is another."""
    path = next((log.home / "tile/1").glob("*.p/*"))
    path.write_bytes(bytes(32))


@case("tile", "differs from the committed hashes")
def an_old_partial_tile_says_something_else(log: PlainLog) -> None:
    """A tile that should be gone lies there and differs."""
    log.write(log.home / "tile/0/000.p/12", bytes(12 * 32))


@case("snapshot", "does not list")
def a_snapshot_hides_a_file(log: PlainLog) -> None:
    """Readers that trust the shortcut would not see its rows."""
    path = next((log.home / "live").iterdir())
    hidden = log.live.pop(a_file(log).path)
    log.snapshot()
    log.live[hidden.path] = hidden
    assert path.exists()


@case("snapshot", "says other things of")
def a_snapshot_is_edited(log: PlainLog) -> None:
    """It says another hash of a file."""
    path = next((log.home / "live").iterdir())
    sha256 = hashlib.sha256(a_file(log).data).hexdigest().encode()
    path.write_bytes(path.read_bytes().replace(sha256, sha256[::-1]))


@case("snapshot", "which is not there")
def a_snapshot_is_of_a_commit_that_is_gone(log: PlainLog) -> None:
    """Commits were cut off; the shortcut was forgotten."""
    path = next((log.home / "live").iterdir())
    path.rename(path.with_name(f"{newest(log) + 1:012d}.json"))


@case("statement", "names this statement: missing")
def a_removal_statement_is_missing(log: PlainLog) -> None:
    """Nobody can tell any more why rows were removed."""
    line = log.statement({"why": "retention"})
    log.expire(a_file(log), "max-90d", line)
    next((log.home / "statements").iterdir()).unlink()
    cosigned_anew(log)


@case("statement", "is not the document that was committed")
def a_removal_statement_is_edited(log: PlainLog) -> None:
    """It gives another reason."""
    line = log.statement({"why": "retention"})
    log.expire(a_file(log), "max-90d", line)
    next((log.home / "statements").iterdir()).write_bytes(b"{}")
    cosigned_anew(log)


@case("unknown-file", "no file of a log is called so")
def a_strange_file_lies_in_the_log(log: PlainLog) -> None:
    """A commit's number has too few digits."""
    log.write(log.home / "commits" / "14", log.commits[-1])


@case("lost", "offsets were lost before they were read")
def offsets_were_lost(log: PlainLog) -> None:
    """The topic's retention was faster than the writer, which says so."""
    log.offset += 10
    log.append(told(700, log.now), f"lost {log.offset - 10}-{log.offset - 1} expired")
    cosigned_anew(log)


@case("silent", "silence without a statement")
def the_log_fell_silent(log: PlainLog) -> dict[str, Any]:
    """Nobody has written for longer than was agreed."""
    return {"max_age": timedelta(hours=1), "now": lambda: log.now + timedelta(hours=2)}


def test_a_good_store_passes(pristine: PlainLog) -> None:
    """The store that every case begins with has nothing wrong, so that each finding is the tampering's."""
    report = checked(pristine.root)
    assert report.ok, report.to_text()
    assert report.rows == 340


def test_there_are_at_least_forty_ways() -> None:
    """The suite is as large as was promised, and no name stands twice."""
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tampering_is_found_and_named(case: Case, log: PlainLog) -> None:
    """The tampering is a finding of its own kind, in words that name it, and the store is not in order."""
    report = checked(log.root, **(case.act(log) or {}))
    assert not report.ok
    found: list[Finding] = [*report.findings, *report.losses]
    assert any(item.kind == case.kind and case.says in item.what for item in found), report.to_text()
