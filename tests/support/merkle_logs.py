"""Merkle logs for tests, and RFC 6962 as its section 2.1 words it: slow, recursive, and on its own."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from evidence.log.merkle import Tree
from evidence.log.tiles import TileRef


def leaves_of(size, seed=b"") -> list[bytes]:
    """Give leaf hashes that are the same in every run."""
    return [hashlib.sha256(b"\x00" + seed + str(number).encode()).digest() for number in range(size)]


@lru_cache(maxsize=200_000)
def plain_root(leaves: tuple[bytes, ...]) -> bytes:
    """Give the root over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    left = split(len(leaves))
    return hashlib.sha256(b"\x01" + plain_root(leaves[:left]) + plain_root(leaves[left:])).digest()


def plain_inclusion(index: int, leaves: tuple[bytes, ...]) -> list[bytes]:
    """Give the proof that a leaf is in the tree."""
    if len(leaves) == 1:
        return []
    left = split(len(leaves))
    if index < left:
        return [*plain_inclusion(index, leaves[:left]), plain_root(leaves[left:])]
    return [*plain_inclusion(index - left, leaves[left:]), plain_root(leaves[:left])]


def plain_consistency(old: int, leaves: tuple[bytes, ...], whole: bool = True) -> list[bytes]:  # noqa: FBT001, FBT002 - the b of RFC 6962
    """Give the proof that the first leaves are the beginning."""
    if old == len(leaves):
        return [] if whole else [plain_root(leaves)]
    left = split(len(leaves))
    if old <= left:
        return [*plain_consistency(old, leaves[:left], whole), plain_root(leaves[left:])]
    return [*plain_consistency(old - left, leaves[left:], whole=False), plain_root(leaves[:left])]


def split(size: int) -> int:
    """Give the largest power of two below a size."""
    left = 1
    while left * 2 < size:
        left *= 2
    return left


class GrownLog:
    """A log that keeps every tile that it ever had."""

    def __init__(self, leaves: list[bytes] | None = None) -> None:
        self.tree = Tree.EMPTY
        self.tiles: dict[TileRef, bytes] = {}
        self.append(leaves or [])

    def append(self, leaves: list[bytes]) -> None:
        """Append leaves in one step."""
        self.tree, tiles = self.tree.extend(b"".join(leaves))
        self.tiles |= {tile.ref: tile.data for tile in tiles}

    def read(self, ref: TileRef) -> bytes:
        """Give a tile."""
        return self.tiles[ref]
