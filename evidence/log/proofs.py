"""Proofs of RFC 6962: that a leaf is in a tree, and that a tree is the beginning of a larger one.

Proofs are made from tiles. The checks need nothing but the proof and the roots (RFC 9162, 2.1.3.2 and 2.1.4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from evidence.errors import StoreError
from evidence.log.merkle import EMPTY_ROOT, complete_root, node_hash
from evidence.log.tiles import HASH_BYTES, HEIGHT, WIDTH, ReadTile, TileRef, read_tile, tile_at

Proof: TypeAlias = tuple[bytes, ...]
"""Hashes from the leaves' side up, as RFC 6962 orders them."""


class ProofError(StoreError):
    """A proof does not prove what it was given for."""


def root_at(size: int, read: ReadTile, *, stored: int | None = None) -> bytes:
    """Give the root that a tree had when it was smaller.

    Args:
        size: leaves of the smaller tree.
        read: gives the tiles.
        stored: leaves of the tree whose tiles there are, at least `size`; None says that it is `size`.

    Raises:
        ValueError: `size` is larger than what is stored.
        StoreError: a tile is damaged.
    """
    return _Nodes(size if stored is None else stored, read, size).root(0, size) if size else EMPTY_ROOT


def inclusion(index: int, size: int, read: ReadTile, *, stored: int | None = None) -> Proof:
    """Prove that a leaf is in a tree.

    Args:
        index: the leaf's number.
        size: leaves of the tree.
        read: gives the tiles.
        stored: leaves of the tree whose tiles there are, at least `size`; None says that it is `size`. A log keeps the
            incomplete tiles of its newest tree only.

    Raises:
        ValueError: the tree has no such leaf, or is larger than what is stored.
        StoreError: a tile is damaged.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    nodes = _Nodes(size if stored is None else stored, read, size)
    begin, stop = 0, size
    proof = []
    while stop - begin > 1:
        middle = begin + _split(stop - begin)
        if index < middle:
            proof.append(nodes.root(middle, stop))
            stop = middle
        else:
            proof.append(nodes.root(begin, middle))
            begin = middle
    return tuple(reversed(proof))


def consistency(old: int, new: int, read: ReadTile, *, stored: int | None = None) -> Proof:
    """Prove that a tree is the beginning of a larger one.

    Args:
        old: leaves of the smaller tree.
        new: leaves of the larger tree.
        read: gives the tiles.
        stored: leaves of the tree whose tiles there are, at least `new`; None says that it is `new`.

    Raises:
        ValueError: `old` is larger than `new`, or `new` than what is stored.
        StoreError: a tile is damaged.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is not the beginning of one of {new}")
    nodes = _Nodes(new if stored is None else stored, read, new)
    if old in {0, new}:
        return ()
    begin, stop = 0, new
    proof = []
    while stop != old:
        middle = begin + _split(stop - begin)
        if old <= middle:
            proof.append(nodes.root(middle, stop))
            stop = middle
        else:
            proof.append(nodes.root(begin, middle))
            begin = middle
    # What remains is a subtree of the old tree; if it is all of it, whoever checks has its root.
    if begin:
        proof.append(nodes.root(begin, stop))
    return tuple(reversed(proof))


def check_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that a leaf is in a tree.

    Args:
        leaf: the leaf's hash.
        index: its number.
        size: leaves of the tree.
        root: root of the tree.
        proof: the proof.

    Raises:
        ProofError: it does not prove that.
    """
    claim = f"leaf {index} of a tree of {size} leaves"
    if not 0 <= index < size:
        raise ProofError(f"{claim}: there is none")
    _check_hashes(claim, leaf, root, *proof)
    node = leaf
    for sibling, left in _climb(claim, index, size - 1, proof):
        node = node_hash(sibling, node) if left else node_hash(node, sibling)
    if node != root:
        raise ProofError(f"{claim}: the proof leads to another root")


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that a tree is the beginning of a larger one.

    Args:
        old: leaves of the smaller tree.
        new: leaves of the larger tree.
        old_root: root of the smaller tree.
        new_root: root of the larger tree.
        proof: the proof.

    Raises:
        ProofError: it does not prove that.
    """
    claim = f"a tree of {old} leaves as the beginning of one of {new}"
    if not 0 <= old <= new:
        raise ProofError(f"{claim}: it cannot be")
    _check_hashes(claim, old_root, new_root, *proof)
    if old in {0, new}:
        if proof or old_root != (EMPTY_ROOT if old == 0 else new_root):
            raise ProofError(f"{claim}: the roots are not what they have to be, or the proof is not empty")
        return
    if not proof:
        raise ProofError(f"{claim}: the proof is shorter than it must be")
    above = (old & -old).bit_length() - 1  # the old tree ends with a complete subtree of this height
    place, last = (old - 1) >> above, (new - 1) >> above
    # An old tree that is one complete subtree is itself the first node; the proof then leaves it out.
    first, *others = proof if place else (old_root, *proof)
    before = after = first
    for sibling, left in _climb(claim, place, last, others):
        if left:
            before = node_hash(sibling, before)
        after = node_hash(sibling, after) if left else node_hash(after, sibling)
    if before != old_root:
        raise ProofError(f"{claim}: the proof leads to another root of the smaller tree")
    if after != new_root:
        raise ProofError(f"{claim}: the proof leads to another root of the larger tree")


def _climb(claim: str, place: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Give each hash of a proof, and whether it stands left of what was joined so far.

    Args:
        claim: what is to be proved, for errors.
        place: the first node's number on its level.
        last: the number of the last node of that level.
        proof: the hashes.
    """
    for sibling in proof:
        if last == 0:
            raise ProofError(f"{claim}: the proof is longer than it can be")
        left = bool(place & 1) or place == last
        while left and place and not place & 1:
            place, last = place >> 1, last >> 1
        yield sibling, left
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError(f"{claim}: the proof is shorter than it must be")


def _split(leaves: int) -> int:
    """Give how many of several leaves are in the left subtree: the largest power of two below their number."""
    return 1 << (leaves - 1).bit_length() - 1


def _check_hashes(claim: str, *hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"{claim}: a hash has not {HASH_BYTES} bytes")


class _Nodes:
    """The nodes of a tree whose tiles are read as they are needed, each once."""

    def __init__(self, stored: int, read: ReadTile, size: int) -> None:
        if size > stored:
            raise ValueError(f"a tree of {size} leaves is not in the tiles of one of {stored}")
        self._stored = stored
        self._read = read
        self._tiles: dict[TileRef, bytes] = {}

    def root(self, begin: int, stop: int) -> bytes:
        """Give the root of a subtree: leaves from a multiple of a power of two on, at most that many."""
        peaks = []
        while begin < stop:
            level = (stop - begin).bit_length() - 1
            peaks.append(self._node(level, begin >> level))
            begin += 1 << level
        root = peaks.pop()
        while peaks:
            root = node_hash(peaks.pop(), root)
        return root

    def _node(self, level: int, index: int) -> bytes:
        """Give the root of the complete subtree of 2^level leaves at a place."""
        above = level % HEIGHT
        first = index << above
        ref = tile_at(level // HEIGHT, first // WIDTH, self._stored)
        if ref not in self._tiles:
            self._tiles[ref] = read_tile(self._read, ref)
        begin = first % WIDTH * HASH_BYTES
        return complete_root(self._tiles[ref][begin : begin + (HASH_BYTES << above)])
