"""The state of a log: what its newest commit says, and the right edge of its tree."""

from __future__ import annotations

from dataclasses import dataclass

from evidence.errors import StoreError
from evidence.files.seam import Files
from evidence.log.commits import Commit
from evidence.log.merkle import Tree
from evidence.log.tiles import TileRef
from evidence.store.history import Noted, newest, read_commit
from evidence.store.layout import LogPartition, log_folder


@dataclass(frozen=True, slots=True)
class Head:
    """A log after its newest commit."""

    noted: Noted
    """The commit."""

    tree: Tree
    """The tree that it states."""

    @property
    def commit(self) -> Commit:
        """What the commit says."""
        return self.noted.commit


def read_head(files: Files, log: LogPartition) -> Head | None:
    """Read the newest commit of a log and the tiles that its tree grows from.

    Raises:
        StoreError: a commit is missing or damaged, or the tiles are not those of the commit.
        UnavailableError: the store cannot be read.
    """
    number = newest(files, str(log))
    if number is None:
        return None
    noted = read_commit(files, str(log), number)
    tree = Tree.load(noted.commit.size, tile_reader(files, log))
    if tree.root() != noted.commit.root:
        raise StoreError(
            f"{log}: the tiles do not give the root of commit {number}; "
            "run `waybill verify` to see which file was changed, and restore it from a backup"
        )
    return Head(noted, tree)


class tile_reader:  # noqa: N801 - called like a function, and named like one
    """Reads tiles of a log."""

    def __init__(self, files: Files, log: LogPartition | str) -> None:
        self._files = files
        self._folder = log_folder(str(log))

    def __call__(self, ref: TileRef) -> bytes:
        """Give a tile's hashes.

        Raises:
            NotThere: there is no such tile.
        """
        return self._files.read(self._folder + ref.path)
