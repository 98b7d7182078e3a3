"""Evidence in a folder of this machine: a file has its name only once it is durable.

    create    temporary file, fsync, hard link, fsync of the folder, temporary name removed
    replace   temporary file, fsync, rename, fsync of the folder

A hard link never replaces a file; `rename` would. A process that dies leaves a temporary file, which nobody takes for
evidence and which `clean` removes. It needs a file system with hard links, `fsync` and, for the locks, `flock`.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pyarrow as pa

from evidence.disk import Disk, Lock
from evidence.errors import StoreError, UnavailableError
from evidence.files.seam import OWN, AlreadyThere, Entry, NotThere, checked, checked_folder

_TEMPORARY, _LOCKS = OWN
_SYNCS: Final = 8
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class LocalFiles:
    """Files below a folder; see `evidence.files.seam.Files`."""

    def __init__(self, root: Path, disk: Disk | None = None, *, now: Callable[[], float] = time.time) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
            root: the folder; made with the first write. It may be a symbolic link, nothing in it may.
            disk: the file system, for tests that fail it.
            now: gives seconds since 1970, for the age of what dead writers left.
        """
        self.root = root
        self._disk = disk or Disk()
        self._now = now
        self._durable: set[Path] = set()  # folders whose own names are known to be durable
        self._counter = itertools.count()
        self._pool = ThreadPoolExecutor(_SYNCS, "evidence-sync")  # a thread begins with the first need of it

    def __repr__(self) -> str:
        return f"LocalFiles({str(self.root)!r})"

    def create(self, path: str, data: bytes | memoryview) -> None:
        """Write a file that is not there yet; see `Files.create`."""
        with self._told(path):
            target = self._for_writing(path)
            temporary = self._write(data)
            try:
                self._disk.sync(temporary)
                try:
                    self._disk.publish(temporary, target)
                except FileExistsError:
                    raise AlreadyThere(f"{self.url(path)} is there already") from None
                self._disk.sync(target.parent)
            except BaseException:
                self._give_up([temporary])
                raise
            self._disk.remove(temporary)

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Write a file over an old one or none; see `Files.replace`."""
        self.replace_many([(path, data)])

    def replace_many(self, items: Iterable[tuple[str, bytes | memoryview]]) -> None:
        """Replace several files; see `Files.replace_many`.

        All are written before the first is made durable, and then made durable side by side: file systems join what
        waits at the same time.
        """
        moves: list[tuple[Path, Path]] = []
        path = ""
        try:
            for path, data in items:
                with self._told(path):
                    target = self._for_writing(path)
                    moves.append((self._write(data), target))
            with self._told(path):
                self._sync_all([temporary for temporary, _ in moves])
                for temporary, target in moves:
                    self._disk.replace(temporary, target)
                self._sync_all(list(dict.fromkeys(target.parent for _, target in moves)))
        except BaseException:
            self._give_up([temporary for temporary, _ in moves])
            raise

    def read(self, path: str) -> bytes:
        """Give a file's content; see `Files.read`."""
        with self._told(path, reading=True):
            return self._disk.read(self._for_reading(path))

    def reader(self, path: str) -> pa.NativeFile:
        """Open a file for pyarrow; see `Files.reader`."""
        with self._told(path, reading=True):
            return pa.OSFile(str(self._for_reading(path)))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Give the files below a folder, by path; see `Files.list`. A symbolic link is no file of the store."""
        with self._told(prefix):
            found = self._below(checked_folder(prefix))
        return iter(sorted(found, key=lambda entry: entry.path))

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Give the names of the folders in a folder; see `Files.folders`."""
        with self._told(prefix):
            names = [
                entry.name
                for entry in self._disk.entries(self._way(checked_folder(prefix)))
                if entry.is_dir(follow_symlinks=False) and (prefix or entry.name not in OWN)
            ]
        return tuple(sorted(names))

    def delete(self, path: str) -> None:
        """Remove a file; see `Files.delete`."""
        with self._told(path):
            self._disk.remove(self._way(checked(path)))

    def lock(self, name: str, wait_s: float) -> Lock:
        """Take `locks/<name>.lock`; see `Files.lock`. It ends with the process, however that ends."""
        if "/" in checked(name):
            raise StoreError(f"{name!r} is no name of a lock")
        with self._told(f"{_LOCKS}/{name}.lock"):
            return Lock(self._own(_LOCKS) / f"{name}.lock", wait_s=wait_s)

    def url(self, path: str) -> str:
        """Give a file's path on this machine; "" is the root."""
        return str(self.root / path)

    def clean(self, older_than_s: float) -> int:
        """Remove temporary files that writers left when they died.

        A writer that is alive and has its file removed fails with `UnavailableError`, and nothing is lost.

        Args:
            older_than_s: remove those that were written at least so many seconds ago; more than any write takes.

        Returns:
            How many were removed.
        """
        removed, now = 0, self._now()
        with self._told(_TEMPORARY):
            for entry in self._disk.entries(self._way(f"{_TEMPORARY}/")):
                with suppress(FileNotFoundError):
                    if now - entry.stat(follow_symlinks=False).st_mtime >= older_than_s:
                        self._disk.remove(Path(entry.path))
                        removed += 1
        return removed

    def _below(self, prefix: str) -> Sequence[Entry]:
        found, folders = [], [prefix]
        while folders:
            folder = folders.pop()
            for entry in self._disk.entries(self._way(folder)):
                path = folder + entry.name
                if path in OWN:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        about = entry.stat(follow_symlinks=False)
                        found.append(Entry(path, about.st_size, about.st_mtime))
        return found

    def _way(self, path: str) -> Path:
        """Give the place of a path, after a look at each folder on the way there: none is a symbolic link."""
        *folders, name = path.split("/")
        place = self.root
        for folder in folders:
            place = place / folder
            self._refuse_link(place)
        return place / name

    def _refuse_link(self, place: Path) -> None:
        try:
            mode = place.lstat().st_mode
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        if stat.S_ISLNK(mode):
            raise StoreError(f"{place} is a symbolic link: an evidence store has none; move it away")

    def _for_reading(self, path: str) -> Path:
        place = self._way(checked(path))
        self._refuse_link(place)
        if not place.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
        return place

    def _for_writing(self, path: str) -> Path:
        place = self._way(checked(path))
        self._make(place.parent)
        return place

    def _own(self, name: str) -> Path:
        folder = self._way(f"{name}/")
        self._make(folder)
        return folder

    def _make(self, folder: Path) -> None:
        """Make a folder and those above it. Also one that was found may be a dead process's and not durable yet."""
        if folder in self._durable and folder.is_dir():
            return
        above = folder.parent
        if folder == self.root:
            if not folder.is_dir() and above != folder:
                self._make_root(folder)
        else:
            self._make(above)
            self._disk.make_directory(folder)
            self._disk.sync(above)
        self._durable.add(folder)

    def _make_root(self, folder: Path) -> None:
        missing = [folder, *itertools.takewhile(lambda parent: not parent.is_dir(), folder.parents)]
        for directory in reversed(missing):
            self._disk.make_directory(directory)
            self._disk.sync(directory.parent)

    def _write(self, data: bytes | memoryview) -> Path:
        folder = self._own(_TEMPORARY)
        while True:
            # The number after the process's: in a container, every process that dies may have had the same one.
            temporary = folder / f"{os.getpid()}-{next(self._counter)}.part"
            try:
                self._disk.write(temporary, memoryview(data))
            except FileExistsError:
                continue
            except BaseException:
                self._give_up([temporary])
                raise
            return temporary

    def _sync_all(self, paths: Sequence[Path]) -> None:
        if len(paths) == 1:
            self._disk.sync(paths[0])
        elif paths:
            waiting = [self._pool.submit(self._disk.sync, path) for path in paths]
            wait(waiting)  # all of them, so that nothing is at work on a file any more when this fails
            for done in waiting:
                done.result()

    def _give_up(self, temporaries: Iterable[Path]) -> None:
        for temporary in temporaries:
            with suppress(OSError):  # what is told is why the write failed; `clean` removes it later
                self._disk.remove(temporary)

    @contextmanager
    def _told(self, path: str, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if reading and error.errno in _GONE:
                raise NotThere(f"{self.url(path)} is not there") from None
            raise UnavailableError(
                f"the evidence store fails: {error.strerror} ({error.filename or self.url(path)})"
            ) from error
