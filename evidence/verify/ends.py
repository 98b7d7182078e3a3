"""What can be told of a log once its commits are read: what is missing, what is too much, and who signed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from evidence.verify.chain import Chain
from evidence.verify.files import PHASE_FILES
from evidence.verify.lying import Lying
from evidence.verify.reading import PHASE_COMMITS
from evidence.verify.report import Finding
from evidence.verify.source import MissingError, ReadError
from evidence.verify.tiles import PHASE_TREE
from evidence.verify.tree import TILE

PHASE_REST = 5


def absent(chain: Chain, tiles: Sequence[str], files: Sequence[str], unlisted: Sequence[str]) -> Iterator[Finding]:
    """Name tiles and live files that are missing, and files that no commit added."""
    for path in tiles:
        yield Finding("tile-missing", path, "this tile is missing", (PHASE_TREE, 0))
    for path in files:
        file = chain.live[path]
        leaf = file.leaves[0][0]
        what = f"this live file is missing: {file.rows} rows, leaves from {leaf} on"
        yield Finding("file-missing", path, what, (PHASE_FILES, leaf))
    for path in unlisted:
        yield Finding("unlisted-file", path, "no commit ever added this file: it is not evidence", (PHASE_REST, 0))


def removed(chain: Chain) -> Iterator[Finding]:
    """See that removed files that still lie there are what they were."""
    for path, sha256 in sorted(chain.removed.items()):
        try:
            _, made = chain.store.digest(path)
        except MissingError:
            continue
        except ReadError as error:
            yield Finding("file-unreadable", path, f"cannot be read: {error}", (PHASE_REST, 0))
            continue
        if made != sha256:
            what = "is not the file that was committed, and later removed: another SHA-256"
            yield Finding("file-changed", path, what, (PHASE_REST, 0))


def statements(chain: Chain, lying: Lying) -> Iterator[Finding]:
    """See that the documents which commits name lie there, and no others."""
    for sha256, number in chain.statements.items():
        path = f"logs/{chain.folder}/statements/{sha256}.json"
        try:
            _, made = chain.store.digest(path)
        except ReadError as error:
            yield Finding("statement", path, f"commit {number} names this statement: {error}", (PHASE_COMMITS, number))
            continue
        if made != sha256:
            yield Finding("statement", path, "is not the document that was committed", (PHASE_COMMITS, number))
    for sha256, path in sorted(lying.statements.items()):
        if sha256 not in chain.statements:
            yield Finding("unlisted-file", path, "no commit names this statement", (PHASE_REST, 0))


def ahead(chain: Chain, lying: Lying) -> Iterator[Finding]:
    """Name what speaks of commits that are not there."""
    if chain.last is None:
        return
    for number, path in sorted(lying.snapshots.items()):
        if number > chain.last.number:
            yield Finding("snapshot", path, f"is of commit {number}, which is not there", (PHASE_COMMITS, number))
    for number, paths in sorted(lying.witness.items()):
        if number > chain.last.number:
            what = f"a witness signed commit {number}, which is not there: commits were cut off at the end"
            yield Finding("cut-off", paths[0], what, (PHASE_COMMITS, number))


def tiles_ahead(chain: Chain, lying: Lying) -> Iterator[str]:
    """Say how many tiles hold more than the last commit covers."""
    count = sum(
        number * TILE + width > chain.size >> 8 * level
        for level, numbers in lying.tiles.items()
        for number, widths in numbers.items()
        for width in widths
    )
    if count:
        yield (
            f"logs/{chain.folder}: {count} tiles reach beyond the last commit; left by a write that was never "
            "committed, or commits were cut off at the end"
        )


def committed(chain: Chain, lying: Lying) -> dict[int, dict[int, set[int]]]:
    """Give the tiles that lie there and belong to the tree of some commit: level, number, widths.

    A writer that dies before its commit leaves tiles in a bucket, and other rows may come in the place of its rows. A
    tile of a size that no commit states is no part of the log: nothing is read from it, and nothing is judged by it.
    """
    return {
        level: {
            number: {width for width in widths if _committed(chain, level, number, width)}
            for number, widths in numbers.items()
        }
        for level, numbers in lying.tiles.items()
    }


def left_over(chain: Chain, lying: Lying) -> Iterator[str]:
    """Say how many tiles within the log are of sizes that no commit states."""
    count = sum(
        not _committed(chain, level, number, width)
        for level, numbers in lying.tiles.items()
        for number, widths in numbers.items()
        for width in widths
        if number * TILE + width <= chain.size >> 8 * level
    )
    if count:
        yield (
            f"logs/{chain.folder}: {count} partial tiles are of no commit and were not judged; left by a write that "
            "was never committed"
        )


def _committed(chain: Chain, level: int, number: int, width: int) -> bool:
    """Tell whether some commit's tree has this tile: a full one stays for ever, a partial one is of one size."""
    hashes = number * TILE + width
    place = bisect_left(chain.sizes, hashes << 8 * level)
    return place < len(chain.sizes) and (width == TILE or chain.sizes[place] >> 8 * level == hashes)


def keys_given(chain: Chain) -> Iterator[Finding | str]:
    """Tell whether the keys that were given vouch for the log; a string is a note, no finding."""
    if not chain.segments:
        return
    where = f"logs/{chain.folder}"
    trusted = next((part for part in chain.segments if part.trusted), None)
    if trusted is None:
        signatures = chain.newest.signatures if chain.newest else ()
        signers = ", ".join(sorted({f"{item.name}+{item.key_id.hex()}" for item in signatures}))
        what = f"none of the keys that were given signed this log; it is signed by {signers}"
        yield Finding("key", where, what, (0, 0))
    elif trusted.begin > chain.segments[0].begin:
        yield (
            f"{where}: commits before {trusted.begin} are vouched for by the hash in each commit that follows; the "
            "key that signed them was not given"
        )
