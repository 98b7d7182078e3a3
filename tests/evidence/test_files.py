"""Where evidence lies: what every implementation of `Files` promises, and what each does in trouble."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_fixtures import ACCESS_KEY, SECRET_KEY

from evidence.disk import Disk, PartitionHeld
from evidence.errors import ConfigError, StoreError, UnavailableError
from evidence.files.access import CredentialsFile
from evidence.files.local import LocalFiles
from evidence.files.places import BucketAccess, open_files
from evidence.files.s3 import S3Files
from evidence.files.seam import AlreadyThere, NotThere

COMMIT = "logs/c1.ai.evidence-0/commits/000000000000"
TILE = "logs/c1.ai.evidence-0/tile/0/x001/x234/067.p/13"


@pytest.fixture(params=["local", "s3"])
def files(request, tmp_path):
    """Give each implementation in turn, empty."""
    if request.param == "local":
        return LocalFiles(tmp_path / "evidence")
    made = request.getfixturevalue("bucket")
    return S3Files(made.url, endpoint=made.endpoint)


def paths(files, prefix=""):
    """Give the paths in a list."""
    return [entry.path for entry in files.list(prefix)]


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


class Step(Disk):
    """Notes each step, and does something else than that at one of them."""

    def __init__(self, step=0, instead=None):
        self.step = step
        self.instead = instead
        self.told = []
        self._lock = threading.Lock()

    def _at(self, name, *about):
        with self._lock:
            self.told.append((name, *about))
            due = len(self.told) == self.step
        if due:
            self.instead()

    def make_directory(self, path):
        """Note the step, then do it."""
        self._at("make_directory", path)
        super().make_directory(path)

    def write(self, path, data):
        """Note the step, then do it."""
        self._at("write", path)
        super().write(path, data)

    def sync(self, path):
        """Note the step, then do it."""
        self._at("sync", path)
        super().sync(path)

    def publish(self, temporary, path):
        """Note the step, then do it."""
        self._at("publish", path)
        super().publish(temporary, path)

    def replace(self, temporary, path):
        """Note the step, then do it."""
        self._at("replace", path)
        super().replace(temporary, path)

    def remove(self, path):
        """Note the step, then do it."""
        self._at("remove", path)
        super().remove(path)

    def names(self):
        """Give the steps' names in order, with what they were done to."""
        return [(name, path.parent.name if path.suffix == ".part" else path.name) for name, path in self.told]


TILES = {f"logs/x/tile/{level}/000": bytes([level]) * 320 for level in range(3)} | {"logs/x/tile/0/001": b"z" * 32}


def work(root, disk):
    """Do one of each kind of write."""
    files = LocalFiles(root, disk)
    files.create(COMMIT, b"commit" * 1000)
    files.replace(TILE, b"tile" * 1000)
    files.replace_many(TILES.items())
    files.delete(TILE)


def test_a_file_has_its_name_only_once_it_is_durable(tmp_path):
    """Content, then the name, then the folder: each is made durable before the next; folders before what is in them."""
    disk = Step()
    files = LocalFiles(tmp_path / "e", disk)
    files.create("logs/x/1", b"data")
    assert disk.names() == [
        ("make_directory", "e"),
        ("sync", tmp_path.name),
        ("make_directory", "logs"),
        ("sync", "e"),
        ("make_directory", "x"),
        ("sync", "logs"),
        ("make_directory", "tmp"),
        ("sync", "e"),
        ("write", "tmp"),
        ("sync", "tmp"),
        ("publish", "1"),
        ("sync", "x"),
        ("remove", "tmp"),
    ]
    disk.told.clear()
    files.replace("logs/x/1", b"more")
    assert disk.names() == [("write", "tmp"), ("sync", "tmp"), ("replace", "1"), ("sync", "x")]


def test_many_files_are_durable_before_the_first_has_its_name(tmp_path):
    """Replacing several files costs one fsync for each file and one for each folder, in the safe order."""
    disk = Step()
    files = LocalFiles(tmp_path, disk)
    files.replace_many(TILES.items())
    disk.told.clear()
    files.replace_many(TILES.items())
    steps = [name for name, _ in disk.told]
    assert steps == ["write"] * 4 + ["sync"] * 4 + ["replace"] * 4 + ["sync"] * 3


def test_another_s_folder_is_made_durable_before_it_is_relied_on(tmp_path):
    """A folder that a process made before it died may not be durable: the next one sees to it, once."""
    (tmp_path / "logs/x").mkdir(parents=True)
    disk = Step()
    files = LocalFiles(tmp_path, disk)
    files.create("logs/x/1", b"")
    assert ("sync", tmp_path) in disk.told
    assert ("sync", tmp_path / "logs") in disk.told
    disk.told.clear()
    files.create("logs/x/2", b"")
    assert [name for name, _ in disk.told] == ["write", "sync", "publish", "sync", "remove"]


def state(root):
    """Give what lies in a store, and see that no file is there in part."""
    found = {entry.path: LocalFiles(root).read(entry.path) for entry in LocalFiles(root).list("")}
    whole = {COMMIT: b"commit" * 1000, TILE: b"tile" * 1000} | TILES
    assert found.items() <= whole.items()
    return found


def test_a_failure_at_any_step_is_told_and_leaves_whole_files(tmp_path):
    """Whichever step of a write fails, the caller hears it, nothing is there in part, and the next try succeeds."""

    def fail():
        raise OSError(28, "No space left on device", "x")

    failed = 0
    for step in itertools.count(1):
        root = tmp_path / str(step)
        disk = Step(step, fail)
        try:
            work(root, disk)
        except UnavailableError as error:
            failed += 1
            assert "No space left" in str(error)  # noqa: PT017 - the loop ends where nothing fails any more
        else:
            break
        state(root)
        left = list((root / "tmp").glob("*")) if (root / "tmp").is_dir() else []
        assert len(left) == (disk.told[step - 1][0] == "remove" and disk.told[step - 1][1].suffix == ".part")
        try:
            work(root, Disk())
        except AlreadyThere:
            assert COMMIT in state(root)
        LocalFiles(root).replace_many(TILES.items())
        assert TILES.items() <= state(root).items()
    assert failed == step - 1 > 35


KILL = """
import os, pathlib, sys
sys.path[:0] = sys.argv[2:4]
from test_files import Step, work
for step in range(1, 500):
    child = os.fork()
    if child == 0:
        work(pathlib.Path(sys.argv[1]) / str(step), Step(step, lambda: os._exit(7)))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        break
    assert code == 7, code
print(step)
"""


def test_a_process_that_dies_at_any_step_leaves_whole_files(tmp_path, request):
    """Whichever step a process dies at, each file is whole or not there, and what it left over is cleaned up."""
    here = [str(request.path.parent), str(request.config.rootpath / "tests/support")]
    ended = subprocess.run(
        [sys.executable, "-c", KILL, str(tmp_path), *here],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(request.config.rootpath), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    steps = int(ended.stdout)
    assert steps > 35
    left = 0
    for step in range(1, steps):
        root = tmp_path / str(step)
        state(root)
        left += LocalFiles(root).clean(0)
        assert not list(root.glob("tmp/*"))
        LocalFiles(root).replace_many(TILES.items())
        assert TILES.items() <= state(root).items()
    assert left > 10


def test_only_old_left_overs_are_cleaned_up(tmp_path):
    """A temporary file that somebody may still be writing stays."""
    files = LocalFiles(tmp_path, now=lambda: time.time() + 100)
    assert files.clean(0) == 0
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/1-0.part").write_bytes(b"half")
    assert files.clean(200) == 0
    assert files.clean(99) == 1
    assert not list((tmp_path / "tmp").iterdir())


def test_a_dead_process_of_the_same_number_does_not_stop_a_writer(tmp_path):
    """In a container each process may have the number of the one that died, and its left-overs under that number."""
    files = LocalFiles(tmp_path)
    files.create("a", b"")
    used = [files._write(b"left over").name for _ in range(3)]
    LocalFiles(tmp_path).create("b", b"whole")
    assert files.read("b") == b"whole"
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == sorted(used)


def test_a_symbolic_link_is_never_followed_out_of_the_store(tmp_path):
    """Neither a linked folder nor a linked file leads a reader or a writer to another place."""
    outside, root = tmp_path / "outside", tmp_path / "store"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    files = LocalFiles(root)
    files.create("logs/x/1", b"ours")
    (root / "logs/folder").symlink_to(outside)
    (root / "logs/x/link").symlink_to(outside / "file")
    (root / "logs/x/nowhere").symlink_to(outside / "made")
    for call in (
        lambda: files.create("logs/folder/new", b"x"),
        lambda: files.replace("logs/folder/file", b"x"),
        lambda: files.read("logs/folder/file"),
        lambda: files.delete("logs/folder/file"),
        lambda: files.list("logs/folder/"),
        lambda: files.read("logs/x/link"),
        lambda: files.reader("logs/x/link"),
    ):
        with pytest.raises(StoreError, match="symbolic link"):
            call()
    for path in ("logs/x/link", "logs/x/nowhere"):
        with pytest.raises(AlreadyThere):
            files.create(path, b"x")
    assert paths(files) == ["logs/x/1"]
    assert files.folders("logs/") == ("x",)
    files.replace("logs/x/link", b"ours")
    assert files.read("logs/x/link") == b"ours"
    (root / "locks").mkdir()
    (root / "locks/x.lock").symlink_to(outside / "file")
    with pytest.raises(UnavailableError):
        files.lock("x", 0)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"file": b"theirs"}


def test_a_store_may_be_named_by_a_link(tmp_path):
    """The root itself may be a symbolic link: that is how a disk is put into place."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "evidence").symlink_to(tmp_path / "disk")
    files = LocalFiles(tmp_path / "evidence")
    files.create(COMMIT, b"x")
    assert (tmp_path / "disk" / COMMIT).read_bytes() == b"x"


def test_a_lock_of_a_folder_keeps_a_second_writer_away(tmp_path):
    """The second is told who holds the lock, and gets it when the first gives it back."""
    first = LocalFiles(tmp_path).lock("c1.ai.evidence-0", 0)
    with pytest.raises(PartitionHeld, match="held by process"):
        LocalFiles(tmp_path).lock("c1.ai.evidence-0", 0.05)
    first.release()
    LocalFiles(tmp_path).lock("c1.ai.evidence-0", 0).release()


# A bucket


def quick(made, endpoint=None, **options):
    """Give a bucket's files, given up after a short time."""
    return S3Files(made.url, endpoint=endpoint or made.endpoint, **{"timeout_s": 5, "retry_s": 2} | options)


def lose(call):
    """Tell whether a call is a conditional put of evidence."""
    return call.method == "PUT" and "if-none-match" in call.headers and "/tmp/" not in call.path  # noqa: S108 - a key


@pytest.mark.parametrize("metadata", ["kept", "dropped"])
def test_a_lost_answer_to_a_creation_is_not_taken_for_another_s_file(bucket, meddler, metadata):
    """If the put has happened and its answer was lost, its caller has made the file, also where marks are dropped."""
    left = [True]

    def after(call):
        if metadata == "dropped":
            call.answer_headers = [(name, value) for name, value in call.answer_headers if "x-amz-meta" not in name]
        return not (lose(call) and left and left.pop())

    meddler.after = after
    quick(bucket, meddler.url).create(COMMIT, b"ours")
    assert [call.status for call in meddler.calls if lose(call)] == [200, 412]
    assert quick(bucket).read(COMMIT) == b"ours"
    with pytest.raises(AlreadyThere):
        quick(bucket, meddler.url).create(COMMIT, b"theirs")


@pytest.mark.parametrize("theirs", [b"theirs", b"ours"])
def test_another_s_file_is_not_taken_for_one_s_own_after_a_lost_answer(bucket, meddler, theirs):
    """If another was first, the caller hears it even if the request was lost, and even with the same content."""
    left = [True]

    def before(call):
        if lose(call) and left and left.pop():
            quick(bucket).create(COMMIT, theirs)
            call.status, call.answer = 503, b"<Error><Code>SlowDown</Code></Error>"

    meddler.before = before
    with pytest.raises(AlreadyThere):
        quick(bucket, meddler.url).create(COMMIT, b"ours")
    assert quick(bucket).read(COMMIT) == theirs


def test_a_conflict_of_two_puts_is_tried_again(bucket, meddler):
    """409 means that two puts met and this one was not done: it is no proof that a file is there."""
    left = [True, True]

    def before(call):
        if lose(call) and left and left.pop():
            call.status, call.answer = 409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"

    meddler.before = before
    quick(bucket, meddler.url).create(COMMIT, b"ours")
    assert quick(bucket).read(COMMIT) == b"ours"


def test_a_server_that_ignores_the_condition_is_found_out(bucket, meddler):
    """Where a conditional put overwrites, nothing is ever written: two writers could not be kept apart."""

    def before(call):
        call.headers.pop("if-none-match", None)

    meddler.before = before
    files = quick(bucket, meddler.url)
    for _ in range(2):
        with pytest.raises(ConfigError, match="ignores `If-None-Match`"):
            files.create(COMMIT, b"ours")
    assert paths(quick(bucket)) == []


def test_the_condition_is_tried_out_once(bucket, meddler):
    """What a server can do costs two requests in an empty bucket, one in a used one, and none after that."""
    for expected in (2, 2, 1):  # two puts; a put that fails and a look at the mark, in later processes
        files = quick(bucket, meddler.url)
        meddler.calls.clear()
        files.create(f"logs/{expected}/{len(paths(quick(bucket)))}", b"")
        probes = [call for call in meddler.calls if "conditional-put" in call.path and call.method == "PUT"]
        assert len(probes) == (2 if not paths(quick(bucket))[1:] else 1)
        meddler.calls.clear()
        files.create(f"logs/more/{len(paths(quick(bucket)))}", b"")
        assert [call.method for call in meddler.calls] == ["PUT"]


def test_what_passes_is_tried_again(bucket, meddler):
    """An answer that the server is busy is no failure, for reading and for writing."""
    quick(bucket).create(COMMIT, b"x")
    left = [True] * 3

    def before(call):
        if left and left.pop():
            call.status, call.answer = 503, b"<Error><Code>SlowDown</Code></Error>"

    meddler.before = before
    files = quick(bucket, meddler.url)
    assert files.read(COMMIT) == b"x"
    left.append(True)
    files.replace(TILE, b"y")
    left.append(True)
    assert paths(files) == [COMMIT, TILE]


def test_a_server_that_is_not_there_is_unavailable(bucket):
    """Every call fails with an error that says to try later, and does not wait for ever."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        files = S3Files(bucket.url, endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", timeout_s=0.3, retry_s=0.3)
        for call in (
            lambda: files.create(COMMIT, b""),
            lambda: files.replace(COMMIT, b""),
            lambda: files.replace_many([(COMMIT, b""), (TILE, b"")]),
            lambda: files.read(COMMIT),
            lambda: files.reader(COMMIT),
            lambda: files.list(""),
            lambda: files.folders(""),
            lambda: files.delete(COMMIT),
        ):
            begun = time.monotonic()
            with pytest.raises(UnavailableError, match=f"s3://{bucket.name}/evidence"):
                call()
            assert time.monotonic() - begun < 10


def test_a_server_that_says_nothing_is_given_up(bucket):
    """A connection without an answer ends after the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        files = S3Files(bucket.url, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3, retry_s=0.5)
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            files.read(COMMIT)
        with pytest.raises(UnavailableError):
            files.create(COMMIT, b"")
        assert time.monotonic() - begun < 20


def test_a_bucket_that_is_not_there_is_named(bucket):
    """A wrong bucket is not an empty store."""
    files = S3Files("s3://no-such-bucket/evidence", endpoint=bucket.endpoint, retry_s=1)
    for call in (lambda: files.read(COMMIT), lambda: files.create(COMMIT, b""), lambda: files.list("")):
        with pytest.raises(UnavailableError, match="no-such-bucket"):
            call()


def test_credentials_are_in_no_error_and_no_name(bucket, meddler):
    """A server's refusal that repeats the access key is not passed on, not even in a traceback."""

    def before(call):
        said = f"<Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><X>{SECRET_KEY}</X>"
        call.status, call.answer = 403, f"<Error>{said}</Error>".encode()

    meddler.before = before
    files = quick(bucket, meddler.url)
    for call in (lambda: files.read(COMMIT), lambda: files.create(COMMIT, b"x"), lambda: files.list("")):
        with pytest.raises(UnavailableError, match="403 SignatureDoesNotMatch: check the credentials") as caught:
            call()
        told = "".join(traceback.format_exception(caught.value)) + repr(files) + repr(vars(files))
        for secret in (ACCESS_KEY, SECRET_KEY):
            assert secret not in told


def test_a_reader_asks_for_the_parts_that_it_needs(bucket, meddler):
    """One column of one row group of a large file does not move the file."""
    numbers = pa.array(range(400_000))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": numbers, "t": numbers.cast(pa.string())}), sink, row_group_size=40_000)
    quick(bucket).create("events/a", memoryview(sink.getvalue()))
    with quick(bucket, meddler.url).reader("events/a") as reader:
        read = pq.ParquetFile(reader).read_row_group(2, columns=["n"])
    assert read.column("n")[0].as_py() == 80_000
    assert sum(len(call.answer) for call in meddler.calls) < sink.getvalue().size / 3
    assert len(meddler.calls) <= 3


def test_a_part_that_fails_is_an_error_of_the_file(bucket, meddler):
    """A read that fails in the middle is an OSError, as of any file."""
    quick(bucket).create("events/a", bytes(600_000))
    with quick(bucket, meddler.url, retry_s=0.2).reader("events/a") as reader:

        def before(call):
            call.status = 500

        meddler.before = before
        with pytest.raises(OSError, match="500"):
            reader.read(10)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://x", "s3://Bucket/x", "https://bucket/x", "s3://bucket/../x", "s3://bucket/x?a=b", "bucket/x"]
)
def test_a_wrong_url_is_a_wrong_setting(url):
    """What is no place in a bucket is refused before anything is sent."""
    with pytest.raises((ConfigError, StoreError)):
        S3Files(url)


def test_an_endpoint_is_encrypted_unless_it_is_this_machine(monkeypatch):
    """Evidence goes off this machine with TLS, whoever names the server, unless the operator allows otherwise."""
    S3Files("s3://bucket/x", endpoint="http://localhost:9000")
    S3Files("s3://bucket/x", endpoint="http://minio.internal:9000", allow_plaintext=True)
    with pytest.raises(ConfigError, match="without encryption"):
        S3Files("s3://bucket/x", endpoint="http://minio.internal:9000")
    with pytest.raises(ConfigError) as caught:
        S3Files("s3://bucket/x", endpoint="https://user:pass-word@minio.internal")
    assert "pass-word" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.internal:9000")
    with pytest.raises(ConfigError, match="without encryption"):
        S3Files("s3://bucket/x")


def credentials(path, text, mode=0o600):
    """Write a credentials file."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_credentials_come_from_a_file_that_may_change(bucket, meddler, tmp_path, monkeypatch):
    """A section of a credentials file says who writes, instead of the environment, and is read anew."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    text = "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = b\n[w]\naws_access_key_id = AKIAWRITER\n"
    path = credentials(tmp_path / "credentials", text + "aws_secret_access_key = c%d\naws_session_token = tok\n")
    files = quick(bucket, meddler.url, credentials_file=path, profile="w")
    files.create(COMMIT, b"x")
    sent = meddler.calls[-1].headers
    assert "Credential=AKIAWRITER/" in sent["authorization"]
    assert sent["x-amz-security-token"] == "tok"
    assert "AKIA" not in repr(files) + repr(vars(files))
    provider = CredentialsFile(path, "w")
    assert provider()["secret_access_key"] == "c%d"  # noqa: S105 - what the test wrote
    credentials(path, text.replace("AKIAWRITER", "AKIANEXT") + "aws_secret_access_key = d\n")
    assert provider()["access_key_id"] == "AKIANEXT"


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (None, 0, "cannot read the credentials file"),
        ("[default]\naws_access_key_id = a\naws_secret_access_key = hidden\n", 0o644, "chmod 600"),
        ("[default]\naws_access_key_id = hidden\n", 0o600, r"section \[default\] must say"),
        ("[other]\naws_access_key_id = a\naws_secret_access_key = hidden\n", 0o600, r"section \[default\] must say"),
        ("hidden hidden\n", 0o600, "no AWS credentials file"),
        ("[default]\naws_secret_access_key hidden\n", 0o600, "no AWS credentials file"),
    ],
)
def test_a_wrong_credentials_file_is_a_wrong_setting(tmp_path, text, mode, told):
    """What cannot be used is told at once, and what is in the file is not."""
    path = tmp_path / "credentials"
    if text is not None:
        credentials(path, text, mode)
    with pytest.raises(ConfigError, match=told) as caught:
        S3Files("s3://bucket/x", credentials_file=path)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_a_place_is_a_folder_or_a_bucket(bucket, tmp_path):
    """What people write as a place becomes the right kind of files."""
    assert isinstance(open_files(tmp_path), LocalFiles)
    assert open_files("data/evidence").url("a") == str(Path("data/evidence/a"))
    files = open_files(bucket.url, BucketAccess(endpoint=bucket.endpoint))
    files.create(COMMIT, b"x")
    assert files.url(COMMIT) == f"s3://{bucket.name}/evidence/{COMMIT}"
    for place in ("file:///data", "gs://bucket/x"):
        with pytest.raises(ConfigError):
            open_files(place)
