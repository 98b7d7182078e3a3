"""Where evidence lies: what every implementation of `Files` promises, and what each does in trouble."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_paths import COMMIT, TILE, paths

from evidence.errors import StoreError
from evidence.files.local import LocalFiles
from evidence.files.s3 import S3Files
from evidence.files.seam import AlreadyThere, NotThere


@pytest.fixture(params=["local", "s3"])
def files(request, tmp_path):
    """Give each implementation in turn, empty."""
    if request.param == "local":
        return LocalFiles(tmp_path / "evidence")
    made = request.getfixturevalue("bucket")
    return S3Files(made.url, endpoint=made.endpoint)


# What every implementation promises


def test_a_file_is_created_once(files):
    """Whoever creates a file second is told, even with the same content, and the first one stays."""
    files.create(COMMIT, b"first")
    for again in (b"second", b"first", b""):
        with pytest.raises(AlreadyThere, match=COMMIT):
            files.create(COMMIT, again)
    assert files.read(COMMIT) == b"first"


def test_of_many_who_create_a_file_one_succeeds(files):
    """Eight writers at the same moment: one has made the file, and seven know that they have not."""
    start = threading.Barrier(8)

    def attempt(number):
        start.wait()
        try:
            files.create(COMMIT, b"%d" % number * 5000)
        except AlreadyThere:
            return None
        return number

    for turn in range(5):
        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(attempt, range(8)) if number is not None]
        assert len(winners) == 1, turn
        assert files.read(COMMIT) == b"%d" % winners[0] * 5000
        files.delete(COMMIT)


def test_a_file_is_replaced_over_an_old_one_or_none(files):
    """Replacing makes a file, and changes it; also several at once."""
    files.replace(TILE, b"1")
    files.replace(TILE, b"22")
    assert files.read(TILE) == b"22"
    items = {f"logs/x/tile/{level}/{number:03}": b"%d" % number * 32 for level in range(3) for number in range(6)}
    files.replace_many((path, data) for path, data in items.items())
    files.replace_many([(TILE, b"333")])
    files.replace_many([])
    assert {path: files.read(path) for path in items} == items
    assert files.read(TILE) == b"333"


def test_a_reader_sees_whole_files_only(files):
    """While a file is replaced again and again, what is read is one of the contents and never a mixture."""
    contents = {bytes([number]) * 200_000 for number in range(4)}
    files.replace(TILE, b"\0" * 200_000)
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(files.read(TILE))

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        for data in sorted(contents) * 5:
            files.replace(TILE, data)
        stop.set()
        for done in reading:
            done.result()
    assert seen <= contents


def test_a_file_that_is_not_there_is_told(files):
    """Neither a missing file nor a folder can be read."""
    files.create(COMMIT, b"x")
    for path in ("logs/none", "logs", COMMIT.rpartition("/")[0], f"{COMMIT}/below"):
        with pytest.raises(NotThere):
            files.read(path)
        with pytest.raises(NotThere):
            files.reader(path)


def test_buffers_of_arrow_are_written_as_they_are(files):
    """What pyarrow encodes is stored without a copy in between."""
    data = pa.py_buffer(bytes(range(256)))
    files.create("events/a.parquet", memoryview(data))
    files.replace("events/b.parquet", memoryview(data))
    assert files.read("events/a.parquet") == files.read("events/b.parquet") == bytes(range(256))


@pytest.mark.parametrize("rows", [3, 300_000])
def test_parquet_is_read_through_a_reader(files, rows):
    """Columns and row groups are read from a file, also from one that is not read whole at once."""
    numbers = pa.array(range(rows))
    table = pa.table({"number": numbers, "text": numbers.cast(pa.string())})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=50_000)
    files.create("events/site=home/date=2026-11-24/a.parquet", memoryview(sink.getvalue()))
    with files.reader("events/site=home/date=2026-11-24/a.parquet") as reader:
        assert pq.ParquetFile(reader).read().equals(table)
    with files.reader("events/site=home/date=2026-11-24/a.parquet") as reader:
        parquet = pq.ParquetFile(reader)
        last = parquet.read_row_group(parquet.num_row_groups - 1, columns=["text"])
        assert last.column("text")[-1].as_py() == str(rows - 1)
        assert reader.size() == sink.getvalue().size
        assert reader.read_at(4, 0) == b"PAR1"


def test_a_list_has_all_files_below_a_folder_by_path(files):
    """Lists go into folders, tell sizes and times, and neither take a name's beginning for a folder nor show tmp/."""
    begun = time.time()
    made = ["events/site=home/date=2026-11-24/a.parquet", "events/b", "events2/c", "logs/x/1", "logs/x.y/2", "logs/x-0"]
    for number, path in enumerate(made):
        files.create(path, b"." * number)
    files.lock("x", 0).release()
    assert paths(files) == sorted(made)
    assert paths(files, "events/") == ["events/b", "events/site=home/date=2026-11-24/a.parquet"]
    assert paths(files, "logs/x/") == ["logs/x/1"]
    assert paths(files, "nothing/here/") == []
    entries = {entry.path: entry for entry in files.list("")}
    assert [entries[path].size for path in made] == list(range(len(made)))
    assert all(begun - 2 <= entry.modified <= time.time() + 2 for entry in entries.values())


def test_a_long_list_is_whole(files):
    """More files than a server puts on one page are all listed."""
    made = [f"logs/x/tile/0/{number:06}" for number in range(1203)]
    files.replace_many((path, b"x") for path in made)
    assert paths(files, "logs/x/") == made


def test_folders_are_named(files):
    """The names of the folders in a folder, without files, without what lies deeper."""
    for path in ("logs/b/commits/1", "logs/a/commits/1", "logs/a/tile/0/000", "logs/file"):
        files.create(path, b"")
    assert files.folders("logs/") == ("a", "b")
    assert files.folders("") == ("logs",)
    assert files.folders("events/") == ()


def test_a_file_is_deleted_once_or_more(files):
    """A deleted file is gone, can be created again, and deleting what is gone is fine."""
    files.create(COMMIT, b"x")
    files.delete(COMMIT)
    files.delete(COMMIT)
    files.delete("no/such/folder/file")
    assert paths(files) == []
    files.create(COMMIT, b"y")
    assert files.read(COMMIT) == b"y"


OUTSIDE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../a",
    "a/../../b",
    "a/..",
    "./a",
    "a//b",
    "a/",
    "tmp/a",
    "locks/a.lock",
    "tmp",
]
ODD = ["a\0b", "a\nb", "a\\b", "x" * 256, "a/" * 500 + "b", "\ud800"]


@pytest.mark.parametrize("path", OUTSIDE + ODD)
def test_a_path_that_leaves_the_store_is_refused(files, path):
    """No call takes a path out of the store, into the writers' own folders, or one that places read differently."""
    for call in (files.read, files.reader, files.delete, lambda path: files.create(path, b"")):
        with pytest.raises(StoreError, match="no path"):
            call(path)
    for call in (files.replace, lambda path, data: files.replace_many([(path, data)])):
        with pytest.raises(StoreError, match="no path"):
            call(path, b"")
    if path:
        with pytest.raises(StoreError):
            files.list(f"{path}/x")
        with pytest.raises(StoreError):
            files.lock(f"{path}/x", 0)
    assert paths(files) == []


def test_a_folder_ends_with_a_slash(files):
    """A list of what only begins like a folder is refused, so that no file is missed or taken by mistake."""
    for call in (files.list, files.folders):
        with pytest.raises(StoreError, match="does not end with /"):
            call("logs")


def test_a_lock_is_given_back(files):
    """A lock can be taken, given back twice, and taken again."""
    for _ in range(2):
        held = files.lock("c1.ai.evidence-0", 0)
        held.release()
        held.release()


def test_places_have_names_for_people(files, tmp_path):
    """A file's URL is its path or its key; the root's is the root's."""
    assert files.url(COMMIT).endswith(f"/evidence/{COMMIT}")
    assert files.url("").endswith("/evidence")
    assert repr(files).endswith("/evidence')")


# A folder of this machine
