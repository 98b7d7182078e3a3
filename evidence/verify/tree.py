"""The Merkle tree of RFC 6962: roots, peaks, and the two proofs. Hashes are 32 bytes and often joined to one string."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Final

HASH: Final = 32
"""Bytes of a hash."""

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""

TILE: Final = 256
"""Hashes of a full tile."""

_PAIRS: Final = struct.Struct(f"{2 * HASH}s")
_TILE_PATH: Final = re.compile(
    r"tile/(?P<level>\d{1,2})/(?P<number>(x\d{3}/){0,6}\d{3})"
    r"(\.p/(?P<width>[1-9]\d?|1\d\d|2[0-4]\d|25[0-5]))?",
    re.ASCII,
)


def leaf_hash(data: bytes) -> bytes:
    """Give the leaf hash of an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Give the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: bytes) -> bytes:
    """Give the root over a power of two of hashes, joined."""
    sha, pairs = hashlib.sha256, _PAIRS.iter_unpack
    while len(hashes) > HASH:
        hashes = b"".join([sha(b"\x01" + pair).digest() for (pair,) in pairs(hashes)])
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


def _sides(place: int, last: int, count: int) -> list[bool] | None:
    """Tell of each hash of a proof whether it stands on the left; None if so many hashes prove nothing."""
    sides = []
    for _ in range(count):
        if last == 0:
            return None
        left = bool(place & 1) or place == last
        sides.append(left)
        while left and place and not place & 1:
            place >>= 1
            last >>= 1
        place >>= 1
        last >>= 1
    return sides if last == 0 else None


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether a proof shows that a leaf hash is number `index` of the tree with that size and root."""
    if not 0 <= index < size or any(len(item) != HASH for item in proof):
        return False
    sides = _sides(index, size - 1, len(proof))
    if sides is None:
        return False
    made = leaf
    for item, left in zip(proof, sides, strict=True):
        made = node(item, made) if left else node(made, item)
    return made == root


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether a proof shows that the tree with size and root `new` only appended to the tree `old`."""
    if not 0 <= old <= new or any(len(item) != HASH for item in proof):
        return False
    if old in {0, new}:
        return not proof and old_root == (new_root if old == new else EMPTY_ROOT)
    path = [*([old_root] if old & (old - 1) == 0 else []), *proof]
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    sides = _sides(place, last, len(path) - 1)
    if sides is None:
        return False
    first = second = path[0]
    for item, left in zip(path[1:], sides, strict=True):
        if left:
            first, second = node(item, first), node(item, second)
        else:
            second = node(second, item)
    return first == old_root and second == new_root


def tile_path(level: int, number: int, width: int = TILE) -> str:
    """Give a tile's path below its log's folder."""
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    partial = "" if width == TILE else f".p/{width}"
    return f"tile/{level}/{'/x'.join(['', *groups[:-1]])[1:]}{'/' if groups[1:] else ''}{groups[-1]}{partial}"


def parse_tile_path(path: str) -> tuple[int, int, int] | None:
    """Give level, number and width of a tile's path, or None if it is no tile's path in its one form."""
    match = _TILE_PATH.fullmatch(path)
    if match is None:
        return None
    level, number = int(match["level"]), int(match["number"].replace("/", "").replace("x", ""))
    width = int(match["width"] or TILE)
    return (level, number, width) if tile_path(level, number, width) == path else None
