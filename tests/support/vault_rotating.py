"""Child processes that rotate a vault's master key, or work in the vault meanwhile.

python vault_rotating.py <what> <folder> [argument]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from vault_children import NOW, ROOT, say

from policy.vault import rotation
from policy.vault.sealing import Vault


def process(what: str, folder: Path, argument: str = "") -> subprocess.Popen[str]:
    """Start a child process on the vault."""
    return subprocess.Popen(
        [sys.executable, __file__, what, str(folder), argument],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
    )


def whole(folder: Path, key_file: Path | None = None, **how: bool) -> rotation.Plan:
    """Rotate, or go on with a rotation."""
    ring = Vault(folder, key_file).ring
    with rotation.exclusive(ring):
        made = rotation.plan(ring)
        rotation.begin(ring, made)
        rotation.rewrap(ring, **how)
        rotation.finish(ring)
    return made


def rotate(folder: Path, argument: str) -> None:
    """Rotate again and again; tell when one begins."""
    del argument
    while True:
        say("begins")
        whole(folder)


def work(folder: Path, argument: str) -> None:
    """Seal under keys old and new, and open them again, until the file `stop` is there; tell how many."""
    vault = Vault(folder, revalidate_s=0.05)
    sealed: list[tuple[str, str]] = []
    hashed = vault.hash_key("acme")
    while not (folder.parent / "stop").exists():
        day = NOW + timedelta(days=len(sealed) % 30)
        tenant = f"tenant-{argument}"
        sealed.append((tenant, vault.seal(tenant, b"text", now=day, bound_to=b"i")))
        for owner, text in sealed[-20:]:
            assert Vault(folder).open(text, tenant=owner, bound_to=b"i") == b"text"
        assert vault.hash_key("acme") == hashed
        if len(sealed) == 5:
            say("at work")
        time.sleep(0.001)
    for owner, text in sealed:
        assert vault.open(text, tenant=owner, bound_to=b"i") == b"text"
    say(len(sealed))


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
