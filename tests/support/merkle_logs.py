"""Merkle logs for tests, and RFC 6962 as its section 2.1 words it: slow, recursive, and on its own."""

from __future__ import annotations

import errno
import hashlib
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.log.keys import PrivateDisk
from evidence.log.merkle import Tree
from evidence.log.notes import LOG_KEY, Signer
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


def signer(name="waybill/home", seed=1, kind=LOG_KEY) -> Signer:
    """Give a key that is the same in every run."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)), kind)


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


class FailingDisk(PrivateDisk):
    """A real file system for keys that notes its steps, and does not carry out one of them."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.steps: list[tuple[str, str]] = []

    def _step(self, name: str, path: Path) -> None:
        self.steps.append((name, path.name))
        if len(self.steps) - 1 == self.fail_at:
            raise OSError(errno.EIO, "the test's disk failed")

    def make_directory(self, path: Path) -> None:
        """See `Disk`."""
        self._step("make_directory", path)
        super().make_directory(path)

    def write(self, path: Path, data: memoryview) -> None:
        """See `Disk`; a failing write leaves half of the data."""
        try:
            self._step("write", path)
        except OSError:
            super().write(path, data[: len(data) // 2])
            raise
        super().write(path, data)

    def sync(self, path: Path) -> None:
        """See `Disk`."""
        self._step("sync", path)
        super().sync(path)

    def publish(self, temporary: Path, path: Path) -> None:
        """See `Disk`."""
        self._step("publish", path)
        super().publish(temporary, path)

    def remove(self, path: Path) -> None:
        """See `Disk`."""
        self._step("remove", path)
        super().remove(path)
