"""Ways of tampering with files and rows, by strangers and by somebody who holds the signing key."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta

from plain_store import (
    NOON,
    STRANGER,
    PlainLog,
    canonical,
    leaf,
    parquet,
    told,
)
from tampering import a_file, case, cosigned_anew, forged, newest, put

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
