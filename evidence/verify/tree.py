"""The Merkle tree of RFC 6962: roots, peaks, and the two proofs. Hashes are 32 bytes and often joined to one string."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

HASH: Final = 32
"""Bytes of a hash."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""

TILE: Final = 256
"""Hashes of a full tile."""

_PAIR: Final = 2 * HASH


def leaf_hash(data: bytes) -> bytes:
    """Give the leaf hash of an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Give the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: bytes) -> bytes:
    """Give the root over a power of two of hashes, joined."""
    sha = hashlib.sha256
    while len(hashes) > HASH:
        hashes = b"".join(
            [sha(b"\x01" + hashes[begin : begin + _PAIR]).digest() for begin in range(0, len(hashes), _PAIR)]
        )
    return hashes


def blocks(begin: int, end: int, most: int = TILE) -> Iterator[tuple[int, int]]:
    """Cut a range of leaves into the largest subtrees that are complete, of at most `most` leaves each."""
    while begin < end:
        size = min(begin & -begin or most, most)
        while begin + size > end:
            size //= 2
        yield begin, begin + size
        begin += size


class Peaks:
    """The complete subtrees that stand for the leaves so far, largest first; roots come from them."""

    __slots__ = ("_stack",)

    def __init__(self, peaks: Sequence[tuple[int, bytes]] = ()) -> None:
        self._stack = list(peaks)

    def add(self, size: int, root: bytes) -> None:
        """Put a complete subtree behind what is there; it must not be larger than the last one."""
        while self._stack and self._stack[-1][0] == size:
            root = node(self._stack.pop()[1], root)
            size *= 2
        self._stack.append((size, root))

    def root(self, more: Sequence[tuple[int, bytes]] = ()) -> bytes:
        """Give the root over all leaves, with further peaks behind them."""
        stack = [*self._stack, *more]
        if not stack:
            return EMPTY_ROOT
        made = stack[-1][1]
        for _, left in reversed(stack[:-1]):
            made = node(left, made)
        return made

    def copy(self) -> tuple[tuple[int, bytes], ...]:
        """Give the peaks as they are."""
        return tuple(self._stack)


def root_of(leaves: bytes) -> bytes:
    """Give the root over leaf hashes, joined."""
    peaks = Peaks()
    for begin, end in blocks(0, len(leaves) // HASH):
        peaks.add(end - begin, fold(leaves[begin * HASH : end * HASH]))
    return peaks.root()


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether a proof shows that a leaf hash is number `index` of the tree with that size and root."""
    if not 0 <= index < size or any(len(item) != HASH for item in proof):
        return False
    made, place, last = leaf, index, size - 1
    for item in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            made = node(item, made)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            made = node(made, item)
        place >>= 1
        last >>= 1
    return last == 0 and made == root


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether a proof shows that the tree with size and root `new` only appended to the tree `old`."""
    if not 0 <= old <= new or any(len(item) != HASH for item in proof):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    first = second = path[0]
    for item in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            first, second = node(item, first), node(item, second)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            second = node(second, item)
        place >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root


def tile_path(level: int, number: int, width: int = TILE) -> str:
    """Give a tile's path below its log's folder."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03d}")
    partial = "" if width == TILE else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_tile_path(path: str) -> tuple[int, int, int] | None:
    """Give level, number and width of a tile's path, or None if it is no tile's path in its one form."""
    parts = path.split("/")
    width = TILE
    if len(parts) >= 3 and parts[-2].endswith(".p"):
        if not _digits(parts[-1], 3):
            return None
        width = int(parts.pop())
        parts[-1] = parts[-1].removesuffix(".p")
    if len(parts) < 3 or len(parts) > 9 or parts[0] != "tile" or not _digits(parts[1], 2):
        return None
    number = 0
    for place, part in enumerate(parts[2:], start=3):
        digits = part if place == len(parts) else part.removeprefix("x")
        if len(digits) != 3 or not _digits(digits, 3):
            return None
        number = number * 1000 + int(digits)
    level = int(parts[1])
    return (level, number, width) if 1 <= width <= TILE and tile_path(level, number, width) == path else None


def _digits(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= most


def ascending(numbers: Sequence[int]) -> bool:
    """Tell whether numbers strictly ascend."""
    return all(one < other for one, other in pairwise(numbers))
