"""Where the hashes of a Merkle tree lie: tiles of height 8, as C2SP `tlog-tiles` names them.

A tile of level 0 holds the hashes of 256 consecutive leaves; one of level L the hashes of 256 complete subtrees of
256^L leaves each. The last tile of a level may hold fewer: it then has its number of hashes in its path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from evidence.errors import StoreError

HEIGHT: Final = 8
"""Levels of nodes that a tile stands for."""

WIDTH: Final = 1 << HEIGHT
"""Hashes in a full tile."""

HASH_BYTES: Final = 32
"""Bytes of a hash."""

_PATH: Final = re.compile(r"tile/(0|[1-9]\d?)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?")
_MAX_LEVEL: Final = 63  # as in C2SP; a tree of 2^64 leaves needs 8


@dataclass(frozen=True, slots=True, order=True)
class TileRef:
    """Which tile."""

    level: int
    """0 is that of the leaves."""

    index: int
    """Place among the tiles of its level, from 0."""

    width: int
    """Hashes in it, 1 to 256."""

    @property
    def path(self) -> str:
        """Path relative to the log's folder, such as `tile/0/x001/234.p/17`."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(reversed(groups))}{partial}"


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile with its hashes."""

    ref: TileRef
    """Which tile."""

    data: bytes
    """Its hashes, one after the other."""


ReadTile: TypeAlias = Callable[[TileRef], bytes]
"""Gives the hashes of a tile; raises what its store raises where there is none."""


def parse_path(path: str) -> TileRef:
    """Read a tile's path; only the form that `TileRef.path` writes is accepted.

    Raises:
        StoreError: it is not the path of a tile.
    """
    match = _PATH.fullmatch(path)
    if match is not None:
        index = int(re.sub("[x/]", "", match[2]))
        ref = TileRef(int(match[1]), index, int(match[3] or WIDTH))
        if ref.level <= _MAX_LEVEL and ref.width <= WIDTH and ref.path == path:
            return ref
    raise StoreError(f"{path[:80]!r} is not the path of a tile; move it out of the evidence store")


def tiles_of(size: int) -> Iterator[TileRef]:
    """Give all tiles of a tree, level by level."""
    level = 0
    while hashes := size >> HEIGHT * level:
        full, rest = divmod(hashes, WIDTH)
        for index in range(full):
            yield TileRef(level, index, WIDTH)
        if rest:
            yield TileRef(level, full, rest)
        level += 1


def right_tiles(size: int) -> list[TileRef]:
    """Give the incomplete tiles of a tree, at most one for each level: all that the tree grows from."""
    found = []
    level = 0
    while hashes := size >> HEIGHT * level:
        full, rest = divmod(hashes, WIDTH)
        if rest:
            found.append(TileRef(level, full, rest))
        level += 1
    return found


def tile_at(level: int, index: int, size: int) -> TileRef:
    """Give the tile of a place as wide as it is in a tree of `size` leaves.

    Raises:
        ValueError: such a tree has no tile there.
    """
    width = min(WIDTH, (size >> HEIGHT * level) - index * WIDTH)
    if width <= 0:
        raise ValueError(f"a tree of {size} leaves has no tile {index} of level {level}")
    return TileRef(level, index, width)


def read_tile(read: ReadTile, ref: TileRef) -> bytes:
    """Read a tile and check that it is whole.

    Raises:
        StoreError: it has another length than its path says.
    """
    data = read(ref)
    if len(data) != ref.width * HASH_BYTES:
        raise StoreError(f"{ref.path} has {len(data)} bytes instead of {ref.width * HASH_BYTES}")
    return data
