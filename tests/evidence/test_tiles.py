"""Where tiles lie: the layout of C2SP `tlog-tiles`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import StoreError
from evidence.log.tiles import TileRef, parse_path, right_tiles, tile_at, tiles_of

REFS = st.builds(TileRef, st.integers(0, 63), st.integers(0, 2**56), st.integers(1, 256))


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        (TileRef(0, 0, 256), "tile/0/000"),
        (TileRef(0, 0, 1), "tile/0/000.p/1"),
        (TileRef(0, 1234, 17), "tile/0/x001/234.p/17"),
        (TileRef(1, 999, 255), "tile/1/999.p/255"),
        (TileRef(2, 1000, 256), "tile/2/x001/000"),
        (TileRef(3, 1234067, 256), "tile/3/x001/x234/067"),
        (TileRef(15, 1234067, 8), "tile/15/x001/x234/067.p/8"),
    ],
)
def test_paths_are_those_of_the_standard(ref, path):
    """A number is written in groups of three digits, all but the last with an x; a partial tile has its width."""
    assert ref.path == path
    assert parse_path(path) == ref


@given(ref=REFS)
def test_a_path_reads_back(ref):
    """A path gives the tile that it was made from."""
    assert parse_path(ref.path) == ref


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/", "tile/0/1", "tile/0/0001", "tile/00/001", "tile/64/001", "tile/-1/001",
        "tile/0/x001", "tile/0/001/002", "tile/0/x000/001", "tile/0/x001/x002", "tile/0/X001/002", "tile/0/001.p",
        "tile/0/001.p/", "tile/0/001.p/0", "tile/0/001.p/01", "tile/0/001.p/1/", "tile/0/001.p/256", "tile/0/001.p/257",
        "/tile/0/001", "../tile/0/001", "tile/0/001\n", "tile/8/0/001", "tile/entries/000",
        "tile/0/\u0661\u0661\u0661", "tile/0/001.p/\u0661",
    ],
)  # fmt: skip
def test_no_other_path_is_a_tile(path):
    """Each tile has one path; what looks like another path of it is refused."""
    with pytest.raises(StoreError, match="is not the path of a tile"):
        parse_path(path)


def test_the_tiles_of_a_tree():
    """70,000 leaves have 273 full tiles and a partial one, above them one of each, above them one of one hash."""
    tiles = list(tiles_of(70_000))
    assert [sum(ref.level == level for ref in tiles) for level in range(4)] == [274, 2, 1, 0]
    assert right_tiles(70_000) == [TileRef(0, 273, 112), TileRef(1, 1, 17), TileRef(2, 0, 1)]
    assert list(tiles_of(0)) == right_tiles(0) == []
    assert list(tiles_of(256)) == [TileRef(0, 0, 256), TileRef(1, 0, 1)]


@given(size=st.integers(0, 300_000))
def test_the_incomplete_tiles_are_those_that_are_not_full(size):
    """The tiles that a tree grows from are its tiles with fewer than 256 hashes, one at most for each level."""
    assert right_tiles(size) == [ref for ref in tiles_of(size) if ref.width < 256]


@given(size=st.integers(1, 100_000))
def test_each_hash_of_a_tree_is_in_one_tile(size):
    """The tiles of a level hold as many hashes as the level has complete subtrees, one after the other."""
    refs = list(tiles_of(size))
    for level in range(4):
        mine = [ref for ref in refs if ref.level == level]
        assert sum(ref.width for ref in mine) == size // 256**level
        assert [ref.index for ref in mine] == list(range(len(mine)))
        assert mine == [tile_at(level, ref.index, size) for ref in mine]
        with pytest.raises(ValueError, match="has no tile"):
            tile_at(level, len(mine), size)
