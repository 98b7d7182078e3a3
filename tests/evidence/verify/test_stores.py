"""Good stores of every kind pass, also while they are written; and the program around the checker."""

from __future__ import annotations

import io
import json
import math
import operator
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plain_store import (
    NEXT,
    NOON,
    OWN,
    SCHEMA,
    STRANGER,
    WITNESS,
    PlainLog,
    canonical,
    leaf,
    parquet,
    rich,
    stories,
    told,
)

from evidence.verify import Progress, Report, UsageError, files, source, verify, walk
from evidence.verify.__main__ import main
from evidence.verify.crew import Crew
from evidence.verify.source import Entry, LocalStore


def checked(root: Path | LocalStore, *keys: str, **more: Any) -> Report:
    """Check a store without waiting for a writer."""
    return verify(root, keys or (OWN.verifier,), **({"pause_s": 0, "jobs": 1} | more))


@pytest.fixture
def log(tmp_path: Path) -> PlainLog:
    """Give a log with a few stories."""
    made = PlainLog(tmp_path / "store")
    made.open()
    made.append(stories(0, 10))
    made.append(stories(10, 10))
    return made


def test_leaves_that_are_not_there_are_not_asked_for(log: PlainLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit may claim any number of leaves: the checker gets ready for no more tiles than the log has."""
    asked: list[str] = []
    monkeypatch.setattr(LocalStore, "ahead", lambda _, paths: asked.extend(paths))
    many = 256 * 5000
    log.edit(2, lambda text: re.sub(r"(?m)^(add \S+) 40 (.*) 40-79$", rf"\1 {many} \2 40-{39 + many}", text))
    assert f" {many} " in log.text(2)
    assert not checked(log.root).ok
    assert set(asked) == {f"logs/{log.folder}/tile/0/000.p/80"}


def test_a_log_without_rows_is_in_order(tmp_path: Path) -> None:
    """A writer that has begun and seen nothing is no fault."""
    made = PlainLog(tmp_path)
    made.open()
    made.say()
    report = checked(tmp_path)
    assert report.ok, report.to_text()
    assert report.logs[0].commits == 2


def test_a_record_that_was_rejected_unread_is_a_whole_story(log: PlainLog) -> None:
    """A rejection is the first and the last event of its story, and is not waited for, however old it is."""
    (row,) = told(99, NOON, events=1, end=False)
    log.append([row | {"event_type": "request.rejected"}])
    log.say()
    report = checked(log.root, open_after=timedelta(0))
    assert report.ok, report.to_text()
    assert (report.logs[0].stories, report.logs[0].open) == (21, 0)


def test_whole_files_expire(log: PlainLog) -> None:
    """Rows that a retention rule removed are told from loss: their leaf hashes still give every root."""
    first = next(iter(log.live.values()))
    log.expire(first, "max-90d", log.statement({"removed": first.path}))
    log.append(stories(20, 3))
    report = checked(log.root)
    assert report.ok, report.to_text()
    assert report.logs[0].expired == 40
    assert report.rows == 52


def test_a_story_of_which_a_part_expired_is_no_gap(tmp_path: Path) -> None:
    """A story over midnight loses its first day; what is left is not blamed."""
    log = PlainLog(tmp_path)
    log.open()
    files = log.append(told(1, NOON + timedelta(hours=11, minutes=59, seconds=59, microseconds=998_000)))
    assert len(files) == 2
    log.expire(files[0])
    report = checked(tmp_path)
    assert report.ok, report.to_text()


def test_what_expired_long_ago_excuses_nothing(log: PlainLog) -> None:
    """A story without its beginning, two months behind the rows that expired, is named."""
    log.expire(next(iter(log.live.values())))
    log.now += timedelta(days=60)
    log.append(told(30, log.now)[1:])
    log.append(told(31, log.now)[:-1])
    log.now += timedelta(days=1)
    log.say()
    assert [finding.kind for finding in checked(log.root).findings] == ["story-start", "never-ended"]


def test_losses_that_are_named_are_accepted_on_request(log: PlainLog) -> None:
    """A loss is an exit code of 1 until somebody says that it is known; a story's gap in it counts as loss."""
    rows = told(30, log.now)
    log.append(rows[:2])
    log.offset += 1
    log.append(rows[3:], f"lost {log.offset - 1} expired")
    report = checked(log.root)
    assert not report.ok
    assert not report.findings
    assert {finding.kind for finding in report.losses} == {"lost", "story-gap"}
    assert checked(log.root, accept_loss=True).ok


def test_a_log_that_begins_in_the_middle(tmp_path: Path) -> None:
    """Where coverage begins late, stories that began before it are noted, not blamed."""
    log = PlainLog(tmp_path, offset=5000, first=5000)
    log.open()
    log.append([*told(1, NOON)[2:], *stories(2, 2)])
    report = checked(tmp_path)
    assert report.ok, report.to_text()
    assert any("1 stories began before the log does, at offset 5000" in note for note in report.notes)


def test_a_request_within_its_deadline_is_open(log: PlainLog) -> None:
    """What has not ended yet is counted, and named only once its deadline and some time are over."""
    log.append(told(40, log.now)[:-1])
    report = checked(log.root)
    assert report.ok, report.to_text()
    assert report.logs[0].open == 1
    log.now += timedelta(minutes=19)
    log.say()
    assert checked(log.root).ok
    assert not checked(log.root, open_after=timedelta(minutes=1)).ok


def test_an_operators_deed_is_a_story_of_its_own(log: PlainLog) -> None:
    """One event of an operator is whole without admission and end."""
    (row, *_) = told(50, log.now)
    log.append([{**row, "stage": "operator", "event_type": "consent.changed"}])
    assert checked(log.root).ok


def test_an_export_is_not_blamed_for_what_it_withholds(tmp_path: Path) -> None:
    """A copy names its source and what stayed there; gaps in stories are by design."""
    log = PlainLog(tmp_path)
    log.open()
    rows = told(1, NOON)
    source = f"source waybill/plant/abc/ai.evidence-0 400 {'A' * 43}="
    log.append([rows[0], rows[3]], source, "withheld 1-2")
    report = checked(tmp_path)
    assert report.ok, report.to_text()
    assert any("a copy of waybill/plant/abc/ai.evidence-0" in note for note in report.notes)


@pytest.mark.parametrize("key", [OWN, NEXT], ids=["old key", "new key"])
def test_any_key_of_the_chain_will_do(log: PlainLog, key: Any) -> None:
    """From the old key the change is followed forward, from the new one backward."""
    log.say(key=NEXT)
    log.append(stories(60, 2))
    report = checked(log.root, key.verifier)
    assert report.ok, report.to_text()
    assert report.logs[0].signed_from == (0 if key is OWN else 4)
    assert not checked(log.root, STRANGER.verifier).ok


def test_a_new_partition_may_begin_with_the_new_key(log: PlainLog) -> None:
    """The site's key was changed before the partition was there: the old key still leads to it, and it is said."""
    log.partitions = 2
    log.say(key=NEXT)
    other = PlainLog(log.root, partition=1, partitions=2, signer=NEXT)
    other.open()
    other.append(stories(100, 2))
    report = checked(log.root)
    assert report.ok, report.to_text()
    assert any("another log of the site names it" in note for note in report.notes)


def test_what_was_kept_is_still_there(log: PlainLog) -> None:
    """An earlier commit, and a plain checkpoint at a size between two commits, are contained in the log."""
    kept = log.commits[1]
    assert checked(log.root, since=kept).ok
    assert checked(log.root, since=log.commits[-1]).ok
    with pytest.raises(UsageError, match="is no checkpoint"):
        checked(log.root, since=b"something else")


def test_the_newest_commit_must_not_be_too_old(log: PlainLog) -> None:
    """Silence shorter than was agreed is in order."""
    assert checked(log.root, max_age=timedelta(hours=1), now=lambda: log.now + timedelta(minutes=59)).ok


def test_more_partitions_than_the_commits_say_may_be_asked_for(log: PlainLog) -> None:
    """Who knows the topic can say how many logs there must be."""
    report = checked(log.root, partitions=2)
    assert [finding.kind for finding in report.findings] == ["log-missing"]


@pytest.mark.parametrize("limit", [20, 1 << 20], ids=["dictionaries that are given up", "dictionaries"])
def test_dictionaries_of_the_file_do_not_matter(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of several row groups, each with its own dictionaries, or with ones that grew too large on the way."""
    monkeypatch.setattr(source, "_MANY_ROWS", 10)
    log = PlainLog(tmp_path)
    log.open()
    rows = log.place([{**row, "detail": f"{place % 50} of a few words"} for place, row in enumerate(stories(0, 300))])
    log.leaves += [leaf(canonical(row)) for row in rows]
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, sink, row_group_size=500, data_page_size=100, dictionary_pagesize_limit=limit)
    file = log.file(rows, range(len(rows)), data=sink.getvalue())
    log.tiles()
    log.say(file.line)
    report = checked(tmp_path)
    assert report.ok, report.to_text()
    assert report.rows == 1200


def test_files_of_different_schemas_are_hashed_alike(tmp_path: Path) -> None:
    """A row keeps its bytes when a later version of the table has more columns, and in a compacted file of both."""
    log = PlainLog(tmp_path)
    log.open()
    newer = SCHEMA.append(pa.field("region", pa.string()))
    log.append(stories(0, 3))
    rows = log.place(stories(3, 3))
    begin = len(log.leaves)
    log.leaves += [leaf(canonical(row, newer)) for row in rows]
    made = log.file(rows, range(begin, begin + len(rows)), data=parquet(rows, newer))
    log.live[made.path] = made
    log.tiles()
    log.say(made.line)
    assert checked(tmp_path).ok
    old = list(log.live.values())
    every = [row for file in old for row in file.rows]
    both = log.file(every, [number for file in old for number in file.leaves], data=parquet(every, newer))
    log.swap(old, [both])
    report = checked(tmp_path)
    assert report.ok, report.to_text()


def test_stories_over_many_pieces_of_work_are_put_together(log: PlainLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a piece of work for each file, stories that go on in the next are whole, and one told twice is found."""
    monkeypatch.setattr(walk, "TASK_ROWS", 1)
    mixed = stories(70, 8)
    log.append(mixed[:13])
    log.append(mixed[13:])
    report = checked(log.root)
    assert report.ok, report.to_text()
    assert report.logs[0].stories == 28
    log.append(told(3, NOON))
    report = checked(log.root)
    assert [finding.kind for finding in report.findings] == ["story-repeated"]
    assert "its story stands in the log more than once" in report.findings[0].what


class BusyStore(LocalStore):
    """A store in which something happens each time after its files were listed."""

    def __init__(self, root: str, *acts: Callable[[], object]) -> None:
        super().__init__(root)
        self.acts = list(acts)

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give what lies there, and then let the writer go on."""
        yield from list(super().list(prefix))
        if self.acts:
            self.acts.pop(0)()


def test_a_store_may_be_written_while_it_is_checked(log: PlainLog) -> None:
    """Commits, new files and new tiles that appear on the way are no fault."""
    made: list[Any] = []

    def half() -> None:
        # A file is there before the commit that adds it, as in every write.
        rows = log.place(stories(80, 2))
        made.append((rows, log.file(rows, range(80, 88))))

    def rest() -> None:
        rows, file = made[0]
        log.leaves += [leaf(canonical(row)) for row in rows]
        log.tiles()
        log.say(file.line)

    half()
    report = checked(BusyStore(str(log.root), lambda: None, rest))
    assert report.ok, report.to_text()
    report = checked(BusyStore(str(log.root), lambda: None, lambda: log.append(stories(90, 70))))
    assert report.ok, report.to_text()


def test_compaction_may_happen_while_it_is_checked(log: PlainLog) -> None:
    """Files that went away because their rows are in a new one are no fault, and every row is checked."""
    report = checked(BusyStore(str(log.root), lambda: None, log.compact))
    assert report.ok, report.to_text()
    assert report.rows == 80


def test_a_file_that_stays_unlisted_is_named_after_all(log: PlainLog) -> None:
    """Commits that have nothing to do with it are no excuse."""
    log.file(log.place(told(99, NOON)), [0])
    report = checked(BusyStore(str(log.root), lambda: None, log.say, log.say, log.say))
    assert [finding.kind for finding in report.findings] == ["unlisted-file"]


def test_workers_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With worker processes the result is the same, for a good store and for a bad one."""
    monkeypatch.setattr(walk, "POOL_ROWS", 1)
    monkeypatch.setattr(walk, "TASK_ROWS", 50)
    log = rich(tmp_path / "store")[0]
    told_to: list[Progress] = []
    report = checked(log.root, jobs=2, progress=told_to.append)
    assert report.ok, report.to_text()
    assert told_to[-1].phase == "end"
    assert (told_to[-1].rows, told_to[-1].total) == (340, 340)
    path = log.root / next(iter(log.live))
    path.write_bytes(b"x")
    assert [finding.kind for finding in checked(log.root, jobs=2).findings] == ["file-changed"]


def test_files_that_are_too_large_for_memory_are_read_in_pieces(log: PlainLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file is hashed and read from the disk, and a change in it is found all the same."""
    monkeypatch.setattr(source, "_IN_MEMORY", 1000)
    monkeypatch.setattr(source, "_MANY_ROWS", 10)
    monkeypatch.setattr(files, "BATCH_ROWS", 7)
    made = log.compact()
    report = checked(log.root)
    assert report.ok, report.to_text()
    assert report.rows == 80
    (log.root / made.path).write_bytes(made.data[:-1])
    assert [finding.kind for finding in checked(log.root).findings] == ["file-changed"]


def test_a_worker_that_dies_takes_only_its_own_work_along() -> None:
    """The piece that a worker died of has no result; the others have theirs, in order."""
    crew = Crew(2)
    work = [(math.sqrt, 4.0), (os._exit, 1), *[(math.sqrt, float(number)) for number in range(20)]]
    try:
        made = [result for _, result in crew.map(operator.call, work, pooled=True)]
    finally:
        crew.close()
    assert made == [2.0, None, *[math.sqrt(number) for number in range(20)]]


# Hostile Parquet, signed by somebody who holds the key


def committed(log: PlainLog, data: bytes, rows: int = 1) -> str:
    """Commit any bytes as a file."""
    placed = log.place(stories(500, 5))[:rows]
    begin = len(log.leaves)
    log.leaves += [leaf(canonical(row)) for row in placed]
    log.offset = placed[-1]["log_offset"] + 1
    file = log.file(placed, range(begin, begin + rows), data=data)
    log.tiles()
    log.say(file.line)
    return file.path


def hostile(change: Callable[[pa.Table], pa.Table]) -> bytes:
    """Give a Parquet file made of a changed table."""
    row = {**told(500, NOON)[0], "log_partition": 0, "log_offset": 80}
    sink = io.BytesIO()
    pq.write_table(change(pa.Table.from_pylist([row], schema=SCHEMA)), sink)
    return sink.getvalue()


def recast(name: str, kind: pa.DataType, value: Any = None) -> Callable[[pa.Table], pa.Table]:
    """Give a change of one column's type and value."""

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, pa.field(name, kind), pa.array([value], kind))

    return change


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"PAR1" + b"\xff" * 60 + b"PAR1",
        b"PAR1" + b"\x15" * 200 + (200).to_bytes(4, "little") + b"PAR1",
        b"PAR1" + bytes(8) + (2**32 - 1).to_bytes(4, "little") + b"PAR1",
        hostile(lambda table: table.drop(["intake_id"])),
        hostile(lambda table: table.append_column("log_offset", table.column("log_offset"))),
        hostile(recast("log_offset", pa.string(), "80")),
        hostile(recast("log_offset", pa.int64())),
        hostile(recast("log_offset", pa.uint64(), 2**64 - 1)),
        hostile(recast("log_partition", pa.float64(), 0.0)),
        hostile(recast("occurred_at", pa.int64(), 5)),
        hostile(recast("occurred_at", pa.timestamp("ms", tz="UTC"), 2**62)),
        hostile(recast("sequence", pa.string(), "0")),
        hostile(recast("event_type", pa.binary(), b"request.ended")),
        hostile(recast("intake_id", pa.string())),
        hostile(recast("detail", pa.decimal128(20, 3), 1)),
        hostile(recast("deadline", pa.timestamp("us", tz="UTC"), 2**62)),
        hostile(recast("detail", pa.list_(pa.list_(pa.string())), [["a"]])),
        hostile(recast("duration_ms", pa.float64(), float("nan"))),
        hostile(
            lambda table: table.rename_columns(["x y" if name == "detail" else name for name in table.column_names])
        ),
        hostile(lambda table: table.slice(0, 0)),
        hostile(lambda table: pa.concat_tables([table, table])),
    ],
    ids=range(23),
)
def test_a_hostile_file_is_a_finding(log: PlainLog, data: bytes) -> None:
    """Broken, odd and lying Parquet that was well signed is named with its path, and nothing is raised."""
    path = committed(log, data)
    report = checked(log.root)
    assert not report.ok
    assert any(finding.where == path for finding in report.findings), report.to_text()
    assert "Traceback" not in report.to_text()


def test_names_that_are_not_text_are_shown_safely(log: PlainLog) -> None:
    """A file's name may hold bytes that are no text, or that a terminal would act on."""
    folder = bytes(log.root / "events/site=home")
    for name in (b"\xff\xfe.parquet", b"\x1b[2Jx.parquet"):
        Path(folder.decode()).joinpath(name.decode("utf-8", "surrogateescape")).write_bytes(b"")
    report = checked(log.root)
    assert len(report.findings) == 2
    assert "\x1b" not in report.to_text()
    assert json.loads(report.to_json())["ok"] is False


# The program


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program as a stranger does."""
    return subprocess.run(
        [sys.executable, "-m", "evidence.verify", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_program_tells_good_from_bad_by_its_exit_code(log: PlainLog, tmp_path: Path) -> None:
    """0 and a summary for a good store, 1 and the first bad thing for a bad one, 2 for wrong usage."""
    good = run(log.root, "--key", OWN.verifier)
    assert (good.returncode, good.stderr) == (0, "")
    assert "OK: 80 rows derived anew" in good.stdout
    assert "No check of files can see" in good.stdout
    path = next(iter(log.live))
    (log.root / path).write_bytes(b"x")
    bad = run(log.root, "--key", OWN.verifier)
    assert bad.returncode == 1
    assert bad.stdout.startswith(f"WRONG  {path}: is not the file that was committed")
    for wrong in (
        [tmp_path / "nowhere", "--key", OWN.verifier],
        [log.root, "--key", "no key"],
        [log.root, "--key", WITNESS.verifier],
        [log.root, "--key", OWN.verifier, "--since", tmp_path / "nowhere"],
    ):
        made = run(*wrong)
        assert (made.returncode, made.stdout) == (2, "")
        assert made.stderr.startswith("evidence.verify: ")


def test_the_report_as_json(log: PlainLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read the same result; keys may lie in files."""
    key = tmp_path / "key"
    key.write_text(OWN.verifier + "\n")
    kept = tmp_path / "kept"
    kept.write_bytes(log.commits[0])
    assert main([str(log.root), "--key", f"@{key}", "--since", str(kept), "--json", "--jobs", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["rows"], document["first"]) == (True, 80, None)
    assert document["logs"][0]["origin"] == log.origin
    (log.root / "logs").rename(log.root / "gone")
    assert main([str(log.root), "--key", OWN.verifier, "--json", "--jobs", "1"]) == 1
    assert json.loads(capsys.readouterr().out)["first"]["kind"] == "empty"


def test_only_so_many_findings_are_listed(log: PlainLog) -> None:
    """The first is named, then some, then their number."""
    for number in range(30):
        log.write(f"events/site=home/odd-{number}", b"")
    text = checked(log.root).to_text(5)
    assert text.count("no file of evidence is called so") == 5
    assert "… and 25 more" in text


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """Interrupted while it waits, the program says so and exits with 130."""
    log = PlainLog(tmp_path / "store")
    log.open()
    log.file(log.place(told(1, NOON)), [0])  # unlisted: the program waits two seconds for a commit
    # Background jobs of a shell ignore Ctrl-C; a program that is started there has to be told otherwise.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from evidence.verify.__main__ import main\n"
        "print('loaded', file=sys.stderr, flush=True); sys.exit(main(sys.argv[1:]))"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code, log.root, "--key", OWN.verifier],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stderr is not None
    assert started.stderr.readline() == b"loaded\n"
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    out, said = started.communicate(timeout=30)
    assert (started.returncode, out) == (130, b"")
    assert b"Traceback" not in said
    assert b"interrupted" in said


def test_it_imports_nothing_of_the_writer() -> None:
    """Loaded alone, it brings in no other part of the project, and of its libraries only pyarrow and cryptography."""
    code = "import sys, evidence.verify.__main__; print(*sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = made.stdout.split()
    ours = ("evidence.", "policy", "streams", "waybill", "queries", "inference")
    assert [name for name in loaded if name.startswith(ours) and not name.startswith("evidence.verify")] == []
    assert not {"orjson", "pydantic", "duckdb", "aiokafka"} & set(loaded)
    assert {"pyarrow", "cryptography"} <= set(loaded)
