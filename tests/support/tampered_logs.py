"""Ways of tampering with commits, keys, witnesses, tiles, and what else lies in a store."""

from __future__ import annotations

import base64
import hashlib
import shutil
from datetime import timedelta
from typing import Any

from plain_store import (
    OWN,
    STRANGER,
    PlainLog,
    signed,
    stories,
    told,
)
from tampering import a_file, case, cosigned_anew, newest, packs

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
    log.write(log.home / "tile/0/000.p/80", bytes(80 * 32))  # of an earlier commit


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
