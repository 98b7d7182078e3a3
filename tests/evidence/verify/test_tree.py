"""The Merkle tree: roots, proofs and tiles, against the definition in RFC 6962."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_store import head, leaf, tile_name

from evidence.verify.report import Finding
from evidence.verify.source import LocalStore
from evidence.verify.tiles import Tiles, TreeCheck, fold_chunk
from evidence.verify.tree import (
    Peaks,
    blocks,
    check_consistency,
    check_inclusion,
    leaf_hash,
    parse_tile_path,
    root_of,
    tile_path,
)

LEAVES = [leaf(b"%d" % number) for number in range(300)]


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Give the inclusion proof as RFC 6962 defines it."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return [*path(index, leaves[:k]), head(leaves[k:])]
    return [*path(index - k, leaves[k:]), head(leaves[:k])]


def subproof(old: int, leaves: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """Give the consistency proof as RFC 6962 defines it."""
    if old == len(leaves):
        return [] if whole else [head(leaves)]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= k:
        return [*subproof(old, leaves[:k], whole=whole), head(leaves[k:])]
    return [*subproof(old - k, leaves[k:], whole=False), head(leaves[:k])]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 8, 255, 256, 257, 300])
def test_roots_are_those_of_the_definition(size: int) -> None:
    """Folding by blocks gives the tree hash of the recursive definition."""
    assert root_of(b"".join(LEAVES[:size])) == head(LEAVES[:size])
    assert leaf_hash(b"0") == LEAVES[0]


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000))
def test_blocks_cover_a_range_with_complete_subtrees(begin: int, length: int) -> None:
    """Each block is aligned to its size, a power of two, and together they are the range."""
    at = begin
    for low, high in blocks(begin, begin + length):
        size = high - low
        assert (low, size & (size - 1), low % size) == (at, 0, 0)
        assert size <= 256
        at = high
    assert at == begin + length


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_inclusion_proofs(size: int, data: st.DataObject) -> None:
    """A proof holds for its own leaf, place, size and root, and for nothing else."""
    index = data.draw(st.integers(0, size - 1))
    proof, root = path(index, LEAVES[:size]), head(LEAVES[:size])
    assert check_inclusion(LEAVES[index], index, size, proof, root)
    assert not check_inclusion(leaf(b"x"), index, size, proof, root)
    assert not check_inclusion(LEAVES[index], index, size, proof, leaf(b"x"))
    assert not check_inclusion(LEAVES[index], index, size, [*proof, root], root)
    assert not check_inclusion(LEAVES[index], size, size, proof, root)
    if proof:
        assert not check_inclusion(LEAVES[index], index, size, proof[:-1], root)
        assert not check_inclusion(LEAVES[index], index, size, [b"short", *proof[1:]], root)


@settings(deadline=None)
@given(st.integers(0, 300), st.data())
def test_consistency_proofs(new: int, data: st.DataObject) -> None:
    """A proof holds for its two trees, and for no others."""
    old = data.draw(st.integers(0, new))
    proof = subproof(old, LEAVES[:new]) if old else []
    one, other = head(LEAVES[:old]), head(LEAVES[:new])
    assert check_consistency(old, new, one, other, proof)
    assert not check_consistency(old, new, leaf(b"x"), other, proof)
    assert not check_consistency(old, new, one, other, [*proof, one])
    if old not in {0, new}:
        assert not check_consistency(old, new, one, leaf(b"x"), proof)
        assert not check_consistency(old, new, one, other, [])
        assert not check_consistency(new, old, other, one, proof)


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(0, 10**12), st.integers(1, 256))
def test_tile_paths_are_read_as_they_are_written(level: int, number: int, width: int) -> None:
    """A path stands for one tile, and the plain writer gives the same."""
    made = tile_path(level, number, width)
    assert parse_tile_path(made) == (level, number, width)
    assert made == f"tile/{level}/{tile_name(number)}" + (f".p/{width}" if width < 256 else "")


def test_the_example_of_the_page() -> None:
    """The page writes tile 1,234,067 so."""
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"


@pytest.mark.parametrize(
    "odd",
    [
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/007",
        "tile/00/001",
        "tile/0/x001",
        "tile/0/001/002",
        "tile//001",
        "tile/0/",
        "tile/0/\u0660\u0660\u0661",
        "tile/entries/000",
    ],
)
def test_a_path_in_another_form_is_no_tile(odd: str) -> None:
    """Each tile has one name."""
    assert parse_tile_path(odd) is None


def test_peaks_give_the_root_at_every_size() -> None:
    """Adding leaf by leaf, the root is right after each."""
    peaks = Peaks()
    for size in range(1, 130):
        peaks.add(1, LEAVES[size - 1])
        assert peaks.root() == head(LEAVES[:size])


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Give the tiles of a tree of three levels."""
    leaves = [hashlib.sha256(b"%d" % number).digest() for number in range(2 * 65_536 + 700)]
    root = tmp_path_factory.mktemp("tiles")
    hashes, level = leaves, 0
    while hashes:
        for number in range(-(-len(hashes) // 256)):
            tile = hashes[number * 256 : (number + 1) * 256]
            file = root / "logs/log" / tile_path(level, number, len(tile))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"".join(tile))
        hashes = [head(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1
    return root, leaves


def fold_all(root: Path, leaves: list[bytes], sizes: Sequence[int]) -> tuple[list[Finding], list[str]]:
    """Check the tiles against the roots at some sizes."""
    found: list[Finding] = []
    expected = {size: (head(leaves[:size]), f"commit of {size}") for size in sizes}
    check = TreeCheck(Tiles(LocalStore(str(root)), "log", len(leaves)), expected, {}, found.append)
    for job in check.jobs():
        check.take(job, fold_chunk(LocalStore(str(root)), job))
    check.end()
    return found, check.missing


def test_a_tree_of_three_levels_is_folded_whole(big: tuple[Path, list[bytes]]) -> None:
    """Roots at sizes within and at the ends of tiles and chunks all fit."""
    root, leaves = big
    sizes = [1, 255, 256, 257, 65_535, 65_536, 65_537, 131_072, 131_073, len(leaves)]
    assert fold_all(root, leaves, sizes) == ([], [])


@pytest.mark.parametrize(("level", "number", "width"), [(0, 3, 256), (0, 514, 188), (1, 1, 256), (1, 2, 2), (2, 0, 2)])
def test_a_changed_or_missing_tile_of_any_level_is_found(
    big: tuple[Path, list[bytes]], level: int, number: int, width: int
) -> None:
    """A changed tile is a finding, a missing one is named, on each level and for partial tiles too."""
    root, leaves = big
    file = root / "logs/log" / tile_path(level, number, width)
    before = file.read_bytes()
    try:
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert fold_all(root, leaves, [len(leaves)])[0]
        file.unlink()
        assert fold_all(root, leaves, [len(leaves)]) == ([], [f"logs/log/{tile_path(level, number, width)}"])
    finally:
        file.write_bytes(before)
