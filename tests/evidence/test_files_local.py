"""Evidence in a folder: each step of a write, faults and deaths at each, links, and what dead writers leave."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import pytest
from file_paths import COMMIT, TILE, paths

from evidence.disk import Disk, PartitionHeld
from evidence.errors import StoreError, UnavailableError
from evidence.files.local import LocalFiles
from evidence.files.seam import AlreadyThere


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
from test_files_local import Step, work
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
