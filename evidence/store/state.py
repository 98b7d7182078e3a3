"""The state of a log: what its newest commit says, and the right edge of its tree."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from evidence.errors import StoreError
from evidence.files.seam import Files, NotThere
from evidence.log.commits import Commit
from evidence.log.merkle import Tree
from evidence.log.tiles import HASH_BYTES, WIDTH, TileRef
from evidence.store.history import Noted, newest, read_commit
from evidence.store.layout import LogPartition, log_folder

_TRIES: Final = 3
"""Times that a tile is looked for which its writer replaces by larger ones meanwhile."""


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
    """Reads tiles of a log, also while it grows."""

    def __init__(self, files: Files, log: LogPartition | str) -> None:
        self._files = files
        self._folder = log_folder(str(log))

    def __call__(self, ref: TileRef) -> bytes:
        """Give a tile's hashes.

        Raises:
            NotThere: there is no such tile.
        """
        try:
            return self._files.read(self._folder + ref.path)
        except NotThere:
            for _ in range(_TRIES if ref.width < WIDTH else 0):
                if (wider := self._wider(ref)) is not None:
                    return wider[: ref.width * HASH_BYTES]
            raise

    def _wider(self, ref: TileRef) -> bytes | None:
        """Give the tile that has taken a partial one's place since the log was as small as that."""
        full = self._folder + TileRef(ref.level, ref.index, WIDTH).path
        names = [entry.path.rpartition("/")[2] for entry in self._files.list(f"{full}.p/")]
        widths = sorted(int(name) for name in names if name.isdecimal() and int(name) > ref.width)
        for path in [*(f"{full}.p/{width}" for width in widths), full]:
            with suppress(NotThere):  # a still larger one is there by now
                return self._files.read(path)
        return None
