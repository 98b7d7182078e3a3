"""Rotation of the master key: the data keys stay, and are wrapped anew under another one.

The steps, each durable before the next, and each safe to do again:

    1. the key for hashes gets a file of its own, so that the new master key does not change it
    2. the new key stands above the old one in the master key's file: from here on it wraps, and both open
    3. each key is wrapped under the new one, one after the other; others make and destroy keys in between
    4. no key needs the old one any more: it is taken out of the file, and its bytes are destroyed

Stopped anywhere, everything can be read, and the next run goes on: a file of several keys is a rotation that was begun.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evidence.errors import ConfigError, UnavailableError
from policy.vault import files as vault_files
from policy.vault import master
from policy.vault.keys import KEY_BYTES, KeyId, KeyRing, Loaded, bound, on_disk, wrapped

_NOT_OURS: Final = (errno.EACCES, errno.EBUSY, errno.ENOTSUP, errno.EPERM, errno.EROFS, errno.EXDEV)
"""What a file system says that holds the key for us, and does not let us put another in its place."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rotation has to do now."""

    new: bytes
    """The key that wraps from now on."""
    old: tuple[bytes, ...]
    """The keys that it takes the place of."""
    begun: bool
    """Whether the master key's file has the new one already."""
    keys: int
    """Data keys there are."""
    left: int
    """Those of them that are not under the new one yet."""

    def __repr__(self) -> str:
        return f"Plan(new={self.new_id}, old={self.old_ids}, begun={self.begun}, keys={self.keys}, left={self.left})"

    @property
    def new_id(self) -> str:
        """Name of the new key."""
        return master.key_id(self.new)

    @property
    def old_ids(self) -> tuple[str, ...]:
        """Names of the old ones."""
        return tuple(master.key_id(key) for key in self.old)


@contextmanager
def exclusive(ring: KeyRing) -> Iterator[None]:
    """Be the only one that rotates this vault's master key.

    Raises:
        ConfigError: there is no vault, or it is another user's.
        UnavailableError: somebody else is at it, or the disk does not let us.
    """
    if not ring.folder.is_dir():
        raise ConfigError(f"there is no vault at {ring.folder}: nothing was kept yet, so there is no key to rotate")
    vault_files.check_ours(ring.folder, ring.key_file)
    with ExitStack() as stack:
        for lock in _locks(ring):
            with on_disk("lock", lock):
                mine = stack.enter_context(vault_files.alone(lock))
            if not mine:
                raise UnavailableError(f"the master key of {ring.folder} is being rotated by somebody else just now")
        yield


def _locks(ring: KeyRing) -> Iterator[Path]:
    yield ring.folder / "rotation.lock"
    target = ring.key_file.resolve()
    # Another vault may share the key: of two that put a new one in the file at once, one would be lost for good.
    if target.parent != ring.folder.resolve() and os.access(target.parent, os.W_OK):
        yield target.parent / f".{target.name}.lock"


def complete(ring: KeyRing) -> bool:
    """Destroy what a rotation that was stopped at its very end has left; say whether there was one.

    Raises:
        ConfigError: the master key cannot be used.
        UnavailableError: the disk does not let us; do it again.
    """
    with on_disk("write in", ring.folder), ring.held():
        if len(ring.load().masters.keys) > 1 or not master.replaced(ring.key_file):
            return False
        master.clear(ring.files, ring.key_file)
        _announce(ring)
        return True


def plan(ring: KeyRing, given: bytes | None = None, *, fresh: Callable[[int], bytes] = secrets.token_bytes) -> Plan:
    """See what there is to do, and that it can be done; nothing is changed.

    Args:
        ring: the vault's keys.
        given: the new master key; None makes one.
        fresh: gives random bytes.

    Raises:
        ConfigError: the master key is missing or wrong, some data key is under none of the keys, or the key that was
            given is the one in use, or another than that of a rotation that was begun.
        VaultError: a key file is damaged.
        UnavailableError: the disk does not let us.
    """
    loaded = ring.load()
    first, *rest = loaded.masters.keys
    if rest and given is not None and given != first:
        raise ConfigError(
            f"a rotation to another key was begun: {ring.key_file} holds {len(rest) + 1} keys; finish that one first, "
            "without --new-key"
        )
    if not rest and given == first:
        raise ConfigError(f"the key given as --new-key is the one in {ring.key_file} already: give another one")
    places = [_place(ring, loaded, key, path) for key, path in _files(ring)]
    foreign = places.count(None)
    if foreign:
        raise ConfigError(
            f"{foreign} of {len(places)} data keys in {ring.folder} are under none of the keys in {ring.key_file}, so "
            "that nothing was changed: put the master key that they were made with as a line below the others"
        )
    if rest:
        left = sum(place != 0 for place in places)
        return Plan(first, tuple(rest), begun=True, keys=len(places), left=left)
    return Plan(given or fresh(KEY_BYTES), (first,), begun=False, keys=len(places), left=len(places))


def begin(ring: KeyRing, made: Plan) -> None:
    """Put the new key above the old one, where it is not there yet; what that left when it was stopped is destroyed.

    Raises:
        ConfigError: the master key's file cannot be replaced here, or was changed meanwhile.
        UnavailableError: the disk does not let us; do it again.
    """
    with on_disk("write in", ring.folder), ring.held():
        if made.begun:
            if master.replaced(ring.key_file):
                master.clear(ring.files, ring.key_file)
            return
        loaded = ring.load()
        if loaded.masters.keys != made.old:
            raise ConfigError(f"{ring.key_file} was changed by somebody else meanwhile: run this again")
        if not ring.hash_file.exists():
            ring.wrap_hashing(loaded, loaded.hashing)
        _swap(
            ring,
            (made.new, *made.old),
            "put the new key as a line above the old one in it yourself, and run this again",
        )


def rewrap(ring: KeyRing, *, new_hashes: bool = False, done: Callable[[], object] = lambda: None) -> int:
    """Wrap under the first master key what is not yet; give how many data keys that were.

    Args:
        ring: the vault's keys.
        new_hashes: make a new key for hashes too: the same value gets other hashes from now on.
        done: called after each data key.

    Raises:
        VaultError: a key file is damaged.
        ConfigError: a data key is under none of the master keys, or these cannot be used.
        UnavailableError: the disk does not let us; do it again.
    """
    count = 0
    with on_disk("write", ring.hash_file), ring.held():
        ring.sweep(ring.folder)
        loaded = ring.load()
        ring.wrap_hashing(loaded, secrets.token_bytes(KEY_BYTES) if new_hashes else loaded.hashing)
    for key, path in _files(ring):
        # The lock is given back in between: workers that need a key do not wait for all of them.
        with on_disk("write", path), ring.held():
            count += _rewrap(ring, key, path)
        done()
    _announce(ring)
    return count


def finish(ring: KeyRing) -> None:
    """Take the old keys out of the master key's file, and destroy their bytes.

    Raises:
        ConfigError: a key is not under the first one (run it again), or the file cannot be replaced here.
        VaultError: a key file is damaged.
        UnavailableError: the disk does not let us; do it again.
    """
    with on_disk("write in", ring.folder), ring.held():
        loaded = ring.load()
        for key, path in _files(ring):
            if _place(ring, loaded, key, path) != 0:
                raise ConfigError(f"{path} came meanwhile and is not under the new master key: run this again")
        _swap(
            ring, loaded.masters.keys[:1], "every key is under its first line now: take the others out of it yourself"
        )
        _announce(ring)


def keep(ring: KeyRing, path: Path, keys: Sequence[bytes]) -> None:
    """Keep old master keys in a file of their own, readable by its owner alone; doing it twice is fine.

    Raises:
        ConfigError: the file holds something else, or is the master key's own.
        UnavailableError: the disk does not let us.
    """
    content = master.text(keys)
    with on_disk("write", path):
        if path.exists() and path.samefile(ring.key_file):
            raise ConfigError(f"{path} is the master key's own file: name another one to keep the old key in")
        if not path.parent.is_dir():
            raise ConfigError(f"there is no folder {path.parent} to keep the old master key in: make it first")
        if not vault_files.create(ring.files, path, content) and path.read_bytes() != content:
            raise ConfigError(f"{path} is there already and holds something else: name a file that is not there yet")


def _files(ring: KeyRing) -> list[tuple[KeyId, Path]]:
    """Give the data keys that are in use; one that was destroyed and is back from a backup opens nothing any more."""
    return [(key, path) for key, path, kind in ring.entries() if kind == "key" and ring.destroyed(key) is None]


def _place(ring: KeyRing, loaded: Loaded, key: KeyId, path: Path) -> int | None:
    """Give under which of the master keys a data key is: 0 for the first, None for none of them, 0 if it is gone."""
    found = _opened(ring, loaded, key, path)
    return 0 if found is None else found[0]


def _opened(ring: KeyRing, loaded: Loaded, key: KeyId, path: Path) -> tuple[int | None, str, bytes] | None:
    """Give under which master key a data key is, its tenant, and the plain key; None where it was destroyed."""
    content = ring.content(key, path)
    if content is None:
        return None
    tenant = str(content["tenant"])
    found = loaded.masters.unwrap(str(content["wrapped"]), bound(tenant, key))
    return (None, tenant, b"") if found is None else (found[0], tenant, found[1])


def _rewrap(ring: KeyRing, key: KeyId, path: Path) -> bool:
    if ring.destroyed(key) is not None:
        return False
    loaded = ring.load()
    found = _opened(ring, loaded, key, path)
    if found is None or found[0] == 0:
        return False
    place, tenant, plain = found
    if place is None:
        raise ConfigError(f"{path} is under none of the keys in {ring.key_file}: nothing of it was changed")
    ring.sweep(path.parent)
    vault_files.replace(ring.files, path, wrapped(loaded.masters, plain, tenant, key))
    return True


def _announce(ring: KeyRing) -> None:
    """Let running workers forget what they hold, and read the master key anew, within a second."""
    with on_disk("write", ring.folder / "generation"):
        vault_files.replace(ring.files, ring.folder / "generation", secrets.token_hex(16).encode())


def _swap(ring: KeyRing, keys: Sequence[bytes], otherwise: str) -> None:
    try:
        master.swap(ring.files, ring.key_file, keys)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        raise ConfigError(f"{ring.key_file} cannot be replaced here ({error.strerror}): {otherwise}") from error
