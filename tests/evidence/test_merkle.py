"""The Merkle tree, and proofs from its tiles, against RFC 6962 word by word."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from merkle_logs import GrownLog, leaves_of, plain_consistency, plain_inclusion, plain_root

from evidence.errors import StoreError
from evidence.log.merkle import EMPTY_ROOT, Tree, leaf_hash, node_hash
from evidence.log.proofs import (
    ProofError,
    check_consistency,
    check_inclusion,
    consistency,
    inclusion,
    root_at,
)
from evidence.log.tiles import TileRef, tiles_of

LEAVES = leaves_of(1500)
ROOTS = [plain_root(tuple(LEAVES[:size])) for size in range(601)]
GROWN = GrownLog(LEAVES[:600])
FAR = 65536 + 700  # three levels of tiles


def refused(check, *args):
    """Whether a check refuses its arguments."""
    try:
        check(*args)
    except ProofError:
        return True
    return False


def test_hashes_are_those_of_rfc_6962():
    """The test vectors of Certificate Transparency's own reference: empty tree, leaves, and a tree of eight."""
    texts = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = Tree.EMPTY
    assert tree.root() == EMPTY_ROOT == hashlib.sha256().digest()
    for text, root in zip(texts, roots, strict=True):
        tree, _ = tree.extend(leaf_hash(bytes.fromhex(text)))
        assert tree.root().hex() == root


def test_a_node_is_not_a_leaf():
    """A leaf and a node over the same bytes have different hashes, so that no subtree passes for a row."""
    left, right = LEAVES[:2]
    assert node_hash(left, right) == hashlib.sha256(b"\x01" + left + right).digest() != leaf_hash(left + right)


@given(cuts=st.lists(st.integers(0, 1500), max_size=12))
def test_a_tree_is_the_same_however_it_grew(cuts):
    """Appended in any pieces, every root is RFC 6962's, and the tiles are all that the sizes on the way have."""
    log = GrownLog()
    sizes = sorted({*cuts, 1500})
    for size in sizes:
        log.append(LEAVES[log.tree.size : size])
        assert log.tree.size == size
        assert log.tree.root() == plain_root(tuple(LEAVES[:size]))
        assert log.tree == Tree.load(size, log.read)
    assert log.tiles.keys() == {ref for size in sizes for ref in tiles_of(size)}
    assert {ref: log.tiles[ref] for ref in tiles_of(1500)} == GrownLog(LEAVES).tiles
    for ref, data in log.tiles.items():
        width = 256**ref.level
        for place in range(ref.width):
            first = (ref.index * 256 + place) * width
            assert data[place * 32 : place * 32 + 32] == plain_root(tuple(LEAVES[first : first + width]))


@given(old=st.integers(0, 1500), new=st.integers(0, 1500))
def test_an_append_gives_just_the_new_tiles(old, new):
    """What an append returns is each tile that the larger tree has and the smaller had not, once."""
    old, new = min(old, new), max(old, new)
    tree, _ = Tree.EMPTY.extend(b"".join(LEAVES[:old]))
    larger, tiles = tree.extend(b"".join(LEAVES[old:new]))
    assert larger.size == new
    refs = [tile.ref for tile in tiles]
    assert len(set(refs)) == len(refs)
    assert set(refs) == set(tiles_of(new)) - set(tiles_of(old))
    assert all(len(tile.data) == 32 * tile.ref.width for tile in tiles)


def test_the_tree_grows_over_the_levels_of_tiles():
    """At 256 and at 65,536 leaves the tiles of the next level begin, with the same roots in one step and in several."""
    leaves = leaves_of(FAR)
    stepwise = GrownLog()
    for size in (255, 256, 257, 511, 512, 65535, 65536, 65537, FAR):
        stepwise.append(leaves[stepwise.tree.size : size])
        assert stepwise.tree == GrownLog(leaves[:size]).tree
    whole = hashes = leaves
    while len(hashes) > 1:  # level by level, an odd last one going up as it is: the same tree in another wording
        pairs = [node_hash(*hashes[at : at + 2]) for at in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[len(pairs) * 2 :]
    assert stepwise.tree.root() == hashes[0]
    assert stepwise.tiles[TileRef(2, 0, 1)] == plain_root(tuple(whole[:65536]))
    assert {ref.level for ref in tiles_of(FAR)} == {0, 1, 2}
    for size in (1, 255, 256, 65535, 65536, FAR - 1):
        assert root_at(size, stepwise.read, stored=FAR) == GrownLog(leaves[:size]).tree.root()


def test_leaves_are_whole_hashes():
    """Bytes that are no whole number of hashes are refused before anything is hashed."""
    with pytest.raises(ValueError, match="33 bytes are no whole number of hashes"):
        Tree.EMPTY.extend(bytes(33))


def test_a_tile_of_another_length_is_refused():
    """A tile that was cut or padded is an error that names it; one with other hashes shows in the root."""
    read = GROWN.read
    for wrong in (b"", bytes(32), bytes(32 * 256)):
        with pytest.raises(StoreError, match=r"tile/0/002.p/88 has \d+ bytes instead of 2816"):
            Tree.load(600, lambda ref, wrong=wrong: wrong if ref.level == 0 else read(ref))
    for level in (0, 1):
        for at in range(0, 32 * (88 if level == 0 else 2), 31):

            def changed(ref, level=level, at=at):
                data = bytearray(read(ref))
                if ref.level == level:
                    data[at] ^= 1
                return bytes(data)

            assert Tree.load(600, changed).root() != GROWN.tree.root()


def test_proofs_are_made_as_rfc_6962_has_them():
    """For all leaves and sizes up to 600, each proof that the tiles give is the one of the recursive definition."""
    for size in [*range(1, 70), 127, 128, 129, 255, 256, 257, 258, 511, 512, 513, 599, 600]:
        leaves = tuple(LEAVES[:size])
        for index in range(size):
            assert list(inclusion(index, size, GROWN.read, stored=600)) == plain_inclusion(index, leaves)
        for old in range(1, size + 1):
            assert list(consistency(old, size, GROWN.read, stored=600)) == plain_consistency(old, leaves)


def test_every_proof_up_to_600_leaves_holds():
    """Leaves of each tree, and pairs of all trees, are proved, from the tiles of the largest tree alone."""
    tiles = {ref: GROWN.tiles[ref] for ref in tiles_of(600)}
    read = tiles.__getitem__
    for size in range(1, 601):
        for index in {*range(size % 31, size, 31), size - 1, size // 2}:
            check_inclusion(LEAVES[index], index, size, ROOTS[size], inclusion(index, size, read, stored=600))
        for old in {*range(size % 31, size, 31), size - 1, size}:
            proof = consistency(old, size, read, stored=600)
            check_consistency(old, size, ROOTS[old], ROOTS[size], proof)


@given(index=st.integers(0, 599), size=st.integers(1, 600))
def test_proofs_come_from_the_tiles_of_their_own_size(index, size):
    """A store that holds just the tiles of a size proves each leaf and each smaller tree of it."""
    index %= size
    tiles = {tile.ref: tile.data for tile in Tree.EMPTY.extend(b"".join(LEAVES[:size]))[1]}
    check_inclusion(LEAVES[index], index, size, ROOTS[size], inclusion(index, size, tiles.__getitem__))
    check_consistency(index, size, ROOTS[index], ROOTS[size], consistency(index, size, tiles.__getitem__))


def mutations(proof):
    """Give what a forger would try with the hashes of a proof."""
    yield from ((*proof[:at], *proof[at + 1 :]) for at in range(len(proof)))
    yield from ((*proof[:at], LEAVES[1499], *proof[at:]) for at in range(len(proof) + 1))
    yield from ((*proof[:at], hashed, *proof[at:]) for at in range(len(proof) + 1) for hashed in proof)
    for at, hashed in enumerate(proof):
        for place in (0, 15, 31):
            flipped = bytearray(hashed)
            flipped[place] ^= 1
            yield (*proof[:at], bytes(flipped), *proof[at + 1 :])
        yield (*proof[:at], hashed[:-1], *proof[at + 1 :])
        yield (*proof[:at], hashed + b"\x00", *proof[at + 1 :])
    for at in range(len(proof) - 1):
        yield (*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :])


@given(index=st.integers(0, 599), size=st.integers(1, 600), data=st.data())
def test_every_mutation_of_an_inclusion_proof_is_refused(index, size, data):
    """Hashes left out, put in, changed, swapped; another leaf, number, size or root: refused."""
    index %= size
    proof = inclusion(index, size, GROWN.read, stored=600)
    claim = (LEAVES[index], index, size, ROOTS[size])
    assert not refused(check_inclusion, *claim, proof)
    for wrong in mutations(proof):
        assert refused(check_inclusion, *claim, wrong)
    other = data.draw(st.integers(0, 599).filter(lambda number: number != index))
    assert refused(check_inclusion, LEAVES[other], index, size, ROOTS[size], proof)
    assert refused(check_inclusion, LEAVES[index], other, size, ROOTS[size], proof)
    assert refused(check_inclusion, LEAVES[index], -1, size, ROOTS[size], proof)
    assert refused(check_inclusion, LEAVES[index], size, size, ROOTS[size], proof)
    other = data.draw(st.integers(1, 600).filter(lambda number: number != size))
    assert refused(check_inclusion, LEAVES[index], index, size, ROOTS[other], proof)
    assert refused(check_inclusion, LEAVES[index], index, other, ROOTS[other], proof)


@given(old=st.integers(0, 600), new=st.integers(0, 600), data=st.data())
def test_every_mutation_of_a_consistency_proof_is_refused(old, new, data):
    """Hashes left out, put in, changed, swapped; another size, or another root of either tree: refused."""
    old, new = min(old, new), max(old, new)
    proof = consistency(old, new, GROWN.read, stored=600)
    assert not refused(check_consistency, old, new, ROOTS[old], ROOTS[new], proof)
    for wrong in mutations(proof):
        assert refused(check_consistency, old, new, ROOTS[old], ROOTS[new], wrong)
    other = data.draw(st.integers(0, 600).filter(lambda number: number not in {old, new}))
    assert refused(check_consistency, old, new, ROOTS[other], ROOTS[new], proof)
    if old and other:  # the empty tree is the beginning of every tree
        assert refused(check_consistency, old, new, ROOTS[old], ROOTS[other], proof)
        assert refused(check_consistency, other, new, ROOTS[other], ROOTS[new], proof)
    assert refused(check_consistency, new + 1, new, ROOTS[old], ROOTS[new], proof)
    assert refused(check_consistency, -1, new, ROOTS[old], ROOTS[new], proof)


@given(forked=st.integers(0, 599), new=st.integers(1, 600))
def test_a_rewritten_leaf_is_no_continuation(forked, new):
    """Whoever changes one leaf of the old tree can make no proof from the new tiles that the check takes."""
    forked %= new
    leaves = [*LEAVES[:forked], leaf_hash(b"another"), *LEAVES[forked + 1 : new]]
    log = GrownLog(leaves)
    for old in {forked + 1, (forked + 1 + new) // 2, new}:
        proof = consistency(old, new, log.read)
        assert refused(check_consistency, old, new, ROOTS[old], log.tree.root(), proof)


def test_a_proof_has_the_length_of_its_claim():
    """A subtree's root passed off as the tree's, and a tree within a larger one, are refused for the proof's length."""
    a, b, c, d = LEAVES[:4]
    ab, cd = node_hash(a, b), node_hash(c, d)
    root = node_hash(ab, cd)
    for check, claim, proof, reason in (
        (check_inclusion, (a, 0, 4, a), (), "shorter than it must be"),
        (check_inclusion, (a, 0, 4, ab), (b,), "shorter than it must be"),
        (check_inclusion, (d, 3, 4, cd), (c,), "leads to another root|shorter than it must be"),
        (check_inclusion, (a, 0, 1, ab), (b,), "longer than it can be"),
        (check_inclusion, (a, 0, 2, root), (b, cd), "longer than it can be"),
        (check_consistency, (1, 2, a, root), (b, cd), "longer than it can be"),
        (check_consistency, (2, 4, ab, root), (), "shorter than it must be"),
        (check_consistency, (1, 4, a, ab), (b,), "shorter than it must be"),
        (check_consistency, (4, 4, root, root), (a,), "the proof is not empty"),
        (check_consistency, (0, 4, EMPTY_ROOT, root), (root,), "the proof is not empty"),
    ):
        with pytest.raises(ProofError, match=reason):
            check(*claim, proof)


def test_a_hash_has_32_bytes():
    """Bytes moved over the border of two hashes leave the node above them as it was, and are refused nevertheless."""
    a, b = LEAVES[:2]
    root = node_hash(a, b)
    assert node_hash(a + b[:1], b[1:]) == root
    with pytest.raises(ProofError, match="a hash has not 32 bytes"):
        check_inclusion(a + b[:1], 0, 2, root, (b[1:],))
    with pytest.raises(ProofError, match="a hash has not 32 bytes"):
        check_consistency(1, 2, a + b[:1], root, (b[1:],))


def test_what_cannot_be_proved_is_asked_for_in_vain():
    """A leaf behind the end, a tree larger than its successor or than the tiles that there are: an error at once."""
    for make, arguments, reason in (
        (inclusion, (600, 600, GROWN.read), "a tree of 600 leaves has no leaf 600"),
        (inclusion, (-1, 600, GROWN.read), "a tree of 600 leaves has no leaf -1"),
        (consistency, (9, 8, GROWN.read), "a tree of 9 leaves is not the beginning of one of 8"),
    ):
        with pytest.raises(ValueError, match=reason):
            make(*arguments)
    with pytest.raises(ValueError, match="a tree of 600 leaves is not in the tiles of one of 599"):
        inclusion(0, 600, GROWN.read, stored=599)
