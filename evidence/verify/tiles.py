"""The tiles of one log against the roots that its commits sign: every hash is folded anew from level 0."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from evidence.verify.report import Finding
from evidence.verify.source import MissingError, ReadError, Store
from evidence.verify.tree import EMPTY_ROOT, HASH, TILE, Peaks, blocks, fold, tile_path

CHUNK_TILES = 256
"""Tiles of level 0 that are folded in one piece of work: one tile of level 1."""

CHUNK = CHUNK_TILES * TILE

PHASE_TREE = 2

PeakList = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class ChunkJob:
    """The tiles of level 0 below one tile of level 1."""

    folder: str
    number: int
    size: int
    """Leaves of the whole log."""
    sizes: tuple[int, ...]
    """Sizes within the chunk at which the peaks are wanted, ascending."""
    others: tuple[tuple[int, int], ...]
    """Further partial tiles that lie there, by number and width."""


@dataclass(slots=True)
class Folded:
    """What a chunk folds to."""

    level1: list[bytes | None] = field(default_factory=list)
    """The hash of each full tile; None where it could not be had."""
    peaks: list[tuple[int, PeakList]] = field(default_factory=list)
    missing: list[tuple[str, int]] = field(default_factory=list)
    """Tiles that are not there, with their numbers."""
    wrong: list[Finding] = field(default_factory=list)
    broken: bool = False
    """Whether the fold could not go on to the end."""


class Tiles:
    """Reads tiles of one log at one size."""

    def __init__(self, store: Store, folder: str, size: int) -> None:
        """Name the log and its size in leaves."""
        self.store, self.folder, self.size = store, folder, size
        self.leaves = lru_cache(maxsize=64)(self._leaves)

    def path(self, level: int, number: int, width: int) -> str:
        """Give a tile's whole path."""
        return f"logs/{self.folder}/{tile_path(level, number, width)}"

    def width(self, level: int, number: int) -> int:
        """Give how many hashes a tile has at this size."""
        return max(0, min(TILE, (self.size >> 8 * level) - number * TILE))

    def read(self, level: int, number: int) -> bytes:
        """Give a tile.

        Raises:
            MissingError: it is not there.
            ReadError: it cannot be read, or has another length than it must.
        """
        width = self.width(level, number)
        data = self.store.read(self.path(level, number, width))
        if len(data) != width * HASH:
            raise ReadError(f"{len(data)} bytes, {width * HASH} are expected")
        return data

    def _leaves(self, number: int) -> bytes | None:
        try:
            return self.read(0, number)
        except ReadError:
            return None


def fold_chunk(store: Store, job: ChunkJob) -> Folded:
    """Fold the level 0 tiles of a chunk; runs in a worker."""
    tiles, made, peaks = Tiles(store, job.folder, job.size), Folded(), Peaks()
    begin = job.number * CHUNK_TILES
    end = min(begin + CHUNK_TILES, -(-job.size // TILE))
    others: dict[int, list[int]] = {}
    for number, width in job.others:
        others.setdefault(number, []).append(width)
    claims: bytes | None = None
    store.ahead([tiles.path(0, number, tiles.width(0, number)) for number in range(begin, end)])
    for number in range(begin, end):
        width, at = tiles.width(0, number), number * TILE
        try:
            data = tiles.read(0, number)
        except ReadError as error:
            path = tiles.path(0, number, width)
            if isinstance(error, MissingError):
                made.missing.append((path, number))
            else:
                made.wrong.append(Finding("tile", path, str(error), (PHASE_TREE, number)))
            if claims is None:
                claims = _claims(tiles, job.number)
            claim = claims[(number - begin) * HASH : (number - begin + 1) * HASH]
            made.level1.append(None)
            if width < TILE or len(claim) != HASH:
                made.broken = True
                return made
            peaks.add(TILE, claim)
            continue
        made.wrong.extend(_others(tiles, number, data, others.get(number, ())))
        root = _fold_tile(data, at, job.sizes, peaks, made)
        if width == TILE:
            made.level1.append(root)
            peaks.add(TILE, root)
    return made


def _fold_tile(data: bytes, begin: int, sizes: Sequence[int], peaks: Peaks, made: Folded) -> bytes:
    """Fold one tile's hashes, and keep the peaks at each size within it that is wanted."""
    inner, at, end = Peaks(), begin, begin + len(data) // HASH
    wanted = sizes[bisect_right(sizes, begin) : bisect_right(sizes, end)]
    for stop in (*wanted, end):
        for first, last in blocks(at, stop):
            inner.add(last - first, fold(data[(first - begin) * HASH : (last - begin) * HASH]))
        at = stop
        made.peaks.append((stop, peaks.copy() + inner.copy()))
    return inner.root()


def _claims(tiles: Tiles, number: int) -> bytes:
    try:
        return tiles.read(1, number)
    except ReadError:
        return b""


def _others(tiles: Tiles, number: int, data: bytes, widths: Sequence[int]) -> Iterator[Finding]:
    """See that further partial tiles of the same number say the same."""
    for width in widths:
        path = tiles.path(0, number, width)
        try:
            other = tiles.store.read(path)
        except MissingError:
            continue
        except ReadError as error:
            yield Finding("tile", path, str(error), (PHASE_TREE, number))
            continue
        common = min(len(data), width * HASH)
        if len(other) != width * HASH or other[:common] != data[:common]:
            yield Finding("tile", path, "differs from the committed hashes of the same leaves", (PHASE_TREE, number))


class TreeCheck:
    """Puts the chunks of one log together, in order, and compares roots and higher tiles."""

    def __init__(
        self,
        tiles: Tiles,
        expected: dict[int, tuple[bytes, str]],
        lying: dict[int, dict[int, set[int]]],
        found: Callable[[Finding], None],
    ) -> None:
        """Begin with nothing.

        Args:
            tiles: the log's tiles.
            expected: size, to the root that is claimed for it, and by whom.
            lying: the tiles that lie there: level, number, widths.
            found: takes what is wrong.
        """
        self.tiles, self.expected, self.lying, self.found = tiles, expected, lying, found
        self.sizes = sorted(expected)
        self.missing: list[str] = []
        self.levels: list[list[bytes]] = []
        self._peaks, self._sound, self._whole = Peaks(), True, True

    def jobs(self) -> Iterator[ChunkJob]:
        """Give the work to be done, in order."""
        size = self.tiles.size
        for number in range(-(-size // CHUNK)):
            low = bisect_right(self.sizes, number * CHUNK)
            high = bisect_right(self.sizes, (number + 1) * CHUNK)
            others = tuple(
                (tile, width)
                for tile in range(number * CHUNK_TILES, min((number + 1) * CHUNK_TILES, -(-size // TILE)))
                for width in sorted(self.lying.get(0, {}).get(tile, ()))
                if width != self.tiles.width(0, tile)
            )
            yield ChunkJob(self.tiles.folder, number, size, tuple(self.sizes[low:high]), others)

    def take(self, job: ChunkJob, made: Folded) -> None:
        """Compare one chunk."""
        for finding in made.wrong:
            self.found(finding)
        self.missing.extend(path for path, _ in made.missing)
        for size, peaks in made.peaks:
            if size in self.expected:
                self._root(size, peaks)
        if made.broken or not self._sound:
            self._whole = False
        if not self._whole:
            return
        hashes = made.level1
        stored = self._tile(1, job.number, [item for item in hashes if item is not None])
        joined = b"".join(
            item if item is not None else stored[place * HASH : (place + 1) * HASH] for place, item in enumerate(hashes)
        )
        if len(hashes) == CHUNK_TILES and len(joined) == CHUNK_TILES * HASH:
            root = fold(joined)
            self._peaks.add(CHUNK, root)
            self._up(0, root)

    def end(self) -> None:
        """Compare what is left: the partial tiles of the higher levels, and the empty tree."""
        if 0 in self.expected and self.expected[0][0] != EMPTY_ROOT:
            self.found(Finding("root", self.expected[0][1], "the root of an empty tree is another", (PHASE_TREE, 0)))
        if not self._whole:
            return
        for level, hashes in enumerate(self.levels, start=2):
            rest = len(hashes) % TILE
            if rest:
                self._tile(level, len(hashes) // TILE, hashes[-rest:])

    def _up(self, place: int, root: bytes) -> None:
        if place == len(self.levels):
            self.levels.append([])
        hashes = self.levels[place]
        hashes.append(root)
        if len(hashes) % TILE == 0:
            tile = hashes[-TILE:]
            self._tile(place + 2, len(hashes) // TILE - 1, tile)
            self._up(place + 1, fold(b"".join(tile)))

    def _root(self, size: int, peaks: PeakList) -> None:
        root, whose = self.expected[size]
        if self._sound and self._peaks.root(peaks) != root:
            self._sound = False
            before = bisect_left(self.sizes, size)
            good = self.sizes[before - 1] if before else 0
            self.found(
                Finding(
                    "root",
                    whose,
                    f"the hashes in the tiles do not give the root that is signed for {size} rows (they do for {good})",
                    (PHASE_TREE, size // TILE),
                )
            )

    def _tile(self, level: int, number: int, hashes: list[bytes]) -> bytes:
        """Compare a tile of a higher level with what was folded; gives what is stored."""
        width = self.tiles.width(level, number)
        if not width:
            return b""
        order = (PHASE_TREE, number * TILE**level)
        path = self.tiles.path(level, number, width)
        try:
            stored = self.tiles.read(level, number)
        except MissingError:
            self.missing.append(path)
            return b""
        except ReadError as error:
            self.found(Finding("tile", path, str(error), order))
            return b""
        made = b"".join(hashes)
        if len(hashes) == width and stored != made:
            at = next(place for place in range(width) if stored[place * HASH :][:HASH] != hashes[place])
            below = self.tiles.path(level - 1, number * TILE + at, TILE)
            self.found(Finding("tile", path, f"its hash {at} is not what {below} folds to", order))
        for other in sorted(self.lying.get(level, {}).get(number, ())):
            if other < width:
                self._older(level, number, other, stored, order)
        return stored

    def _older(self, level: int, number: int, width: int, stored: bytes, order: tuple[int, int]) -> None:
        path = self.tiles.path(level, number, width)
        try:
            if self.tiles.store.read(path) != stored[: width * HASH]:
                self.found(Finding("tile", path, "differs from the committed hashes of the same subtrees", order))
        except MissingError:
            return
        except ReadError as error:
            self.found(Finding("tile", path, str(error), order))
