"""The Merkle tree of RFC 6962: a tree that grows at its right edge, and the tiles that hold its hashes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from evidence.log.tiles import (
    HASH_BYTES,
    HEIGHT,
    WIDTH,
    ReadTile,
    Tile,
    TileRef,
    read_tile,
    tile_at,
)

EMPTY_ROOT: Final = hashlib.sha256().digest()
"""The root of the tree without leaves."""

_TILE_BYTES: Final = WIDTH * HASH_BYTES
_TILES_AT_ONCE: Final = 32  # what one level gives is still near the processor when the next level takes it


def leaf_hash(entry: bytes) -> bytes:
    """Give the hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Give the hash of a node above two hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def complete_root(hashes: bytes) -> bytes:
    """Give the root above hashes whose number is a power of two, one after the other."""
    while len(hashes) > HASH_BYTES:
        hashes = _nodes_above(hashes)
    return hashes


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree: its size, and the hashes from which it grows."""

    size: int
    """Leaves in it."""

    right: tuple[bytes, ...]
    """For each level of tiles the hashes of its incomplete tile, one after the other; empty where all are full."""

    EMPTY: ClassVar[Tree]
    """The tree without leaves."""

    def root(self) -> bytes:
        """Give the tree's root."""
        root = b""
        for hashes in self.right:
            # The hashes make complete subtrees, the largest first; the root joins them from the smallest on.
            width = stop = len(hashes) // HASH_BYTES
            for bit in range(HEIGHT):
                if width & (1 << bit):
                    begin = stop - (1 << bit)
                    peak = complete_root(hashes[begin * HASH_BYTES : stop * HASH_BYTES])
                    root = node_hash(peak, root) if root else peak
                    stop = begin
        return root or EMPTY_ROOT

    def extend(self, leaves: bytes) -> tuple[Tree, list[Tile]]:
        """Append leaves.

        Args:
            leaves: the leaves' hashes, one after the other.

        Returns:
            The larger tree, and all tiles, full and partial, that it has and this one has not.

        Raises:
            ValueError: `leaves` are no whole hashes.
        """
        if len(leaves) % HASH_BYTES:
            raise ValueError(f"{len(leaves)} bytes are no whole number of hashes")
        right: list[bytes] = []
        tiles: list[Tile] = []
        new, level = leaves, 0
        while new:
            old = self.right[level] if level < len(self.right) else b""
            hashes = old + new
            first = (self.size >> HEIGHT * level) // WIDTH
            full = len(hashes) // _TILE_BYTES
            for place in range(full):
                data = hashes[place * _TILE_BYTES : (place + 1) * _TILE_BYTES]
                tiles.append(Tile(TileRef(level, first + place, WIDTH), data))
            rest = hashes[full * _TILE_BYTES :]
            if rest:
                tiles.append(Tile(TileRef(level, first + full, len(rest) // HASH_BYTES), rest))
            right.append(rest)
            new = _tile_roots(hashes, full)
            level += 1
        return Tree(self.size + len(leaves) // HASH_BYTES, (*right, *self.right[level:])), tiles

    @classmethod
    def load(cls, size: int, read: ReadTile) -> Tree:
        """Read a tree from its incomplete tiles.

        Whether they are the right ones shows in `root`, to which each of their hashes adds.

        Raises:
            StoreError: a tile has another length than its path says.
        """
        right = []
        level = 0
        while hashes := size >> HEIGHT * level:
            full, rest = divmod(hashes, WIDTH)
            right.append(read_tile(read, tile_at(level, full, size)) if rest else b"")
            level += 1
        return cls(size, tuple(right))


Tree.EMPTY = Tree(0, ())


def _tile_roots(hashes: bytes, tiles: int) -> bytes:
    """Give the roots of the first so many tiles."""
    roots = []
    for first in range(0, tiles, _TILES_AT_ONCE):
        stop = min(first + _TILES_AT_ONCE, tiles)
        nodes = hashes[first * _TILE_BYTES : stop * _TILE_BYTES]
        for _ in range(HEIGHT):
            nodes = _nodes_above(nodes)
        roots.append(nodes)
    return b"".join(roots)


def _nodes_above(hashes: bytes) -> bytes:
    """Give the nodes above an even number of hashes: the loop in which a large append spends its time."""
    sha256 = hashlib.sha256
    return b"".join([sha256(b"\x01" + pair).digest() for (pair,) in _PAIRS.iter_unpack(hashes)])


_PAIRS: Final = struct.Struct(f"{2 * HASH_BYTES}s")
