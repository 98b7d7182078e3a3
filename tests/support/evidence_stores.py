"""Stores of evidence for tests: real ones, in a folder, signed with a key that is the same in every run."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.disk import Disk
from evidence.files.local import LocalFiles
from evidence.log.notes import Signer
from evidence.store.site import EvidenceStore


class OneKey:
    """The keys of a site that has one."""

    def __init__(self, site: str, generation: int = 0) -> None:
        seed = hashlib.sha256(f"{site}/{generation}".encode()).digest()
        self.signer = Signer(f"waybill/{site}", Ed25519PrivateKey.from_private_bytes(seed))

    def newest(self):
        """Give it."""
        return self.signer

    def by_key(self, vkey):
        """Give it, if it is meant."""
        assert vkey == self.signer.vkey
        return self.signer

    def signed(self, note):
        """Give its verifier key; nothing else signed here."""
        del note
        return self.signer.vkey


def local_store(root, site="home", *, disk: Disk | None = None, keys=None, **options) -> EvidenceStore:
    """Give the store of a site in a folder."""
    return EvidenceStore(LocalFiles(root, disk), site, keys or OneKey(site), **options)
