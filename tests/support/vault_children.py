"""Child processes that work on a vault while a test kills them, fills their disk or destroys their keys.

python vault_children.py <what> <folder> [argument]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from evidence.errors import WaybillError
from policy.files import Document
from policy.holds import Holds
from policy.retention import parse
from policy.vault.erasure import Erasure, Erasures, carry_out
from policy.vault.sealing import Bucket, Vault
from policy.vault.store import SealedObject, VaultStore, seal_object

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEEP = Bucket("keep", 0, 30, "day")


def an_object(vault: Vault, intake: str, *, text: bytes = b"{}", now: datetime = NOW, **fields: object) -> SealedObject:
    """A pseudonym map of one intake, unless fields say otherwise."""
    given = {
        "kind": "pseudonyms",
        "intake_id": intake,
        "request_id": f"request of {intake}",
        "tenant": "acme",
        "subject": None,
        "data_class": "internal",
        "purpose": "customer-support",
        "bucket": KEEP,
        **fields,
    }
    return seal_object(vault, text, now=now, **given)


def say(what: object) -> None:
    """Tell the test something, at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def child(what: str, folder: Path, argument: str = "") -> subprocess.Popen[str]:
    """Start a child process on the vault."""
    return subprocess.Popen(
        [sys.executable, __file__, what, str(folder), argument],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def files(folder: Path) -> list[str]:
    """Give the files under a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def seal(folder: Path, argument: str) -> None:
    """Wait until the file `go` is there, then seal once for a tenant that has no key yet."""
    vault = Vault(folder)
    say("ready")
    while not (folder.parent / "go").exists():
        time.sleep(0.001)
    say(vault.seal("acme", argument.encode(), now=NOW, bound_to=b"i"))


def use(folder: Path, argument: str) -> None:
    """Open one text again and again until it cannot be opened; say why, and seal no more either."""
    vault = Vault(folder)
    vault.open(argument, tenant="acme", bound_to=b"i")
    say("open")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            vault.open(argument, tenant="acme", bound_to=b"i")
        except WaybillError as error:
            say(type(error).__name__)
            return
        time.sleep(0.005)
    say("still open")


def put(folder: Path, argument: str) -> None:
    """Keep batches of ten objects for ever; tell each batch once it is kept."""
    vault, store = Vault(folder), VaultStore(folder)
    for batch in range(int(argument) if argument else 1_000_000):
        store.put_many([an_object(vault, f"{argument}-{batch}-{place}", text=b"x" * 3000) for place in range(10)])
        say(batch)


def full(folder: Path, argument: str) -> None:
    """Work on a disk that takes no file larger than some bytes; tell how each step ends."""
    vault, store = Vault(folder), VaultStore(folder)
    if argument == "store":
        store.put(an_object(vault, "first"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        steps = [lambda: store.put_many([an_object(vault, f"m{n}", text=b"x" * 20_000) for n in range(20)])]
    else:
        vault.prepare()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, resource.RLIM_INFINITY))
        steps = [lambda: vault.seal("acme", b"x", now=NOW, bound_to=b"i")]
    for step in steps:
        try:
            step()
            say("done")
        except WaybillError as error:
            say(type(error).__name__)


def erase(folder: Path, argument: str) -> None:
    """Carry out the erasure of a person that evidence has already; tell when it begins and when it is done."""
    text = 'version: 1\nrules:\n  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 3}\n'
    rules = parse(Document(text, "rules"), classes=("internal",), categories=(), purposes=None)
    store = VaultStore(folder)
    erasures = Erasures(store)
    if ("acme", argument) not in erasures.people():  # as the command does
        erasures.ask(Erasure("e" * 32, "acme", argument, "letter", "user:ada", NOW))
    erasures.mark_asked(["e" * 32], "told")
    say("begun")
    carry_out(erasures, now=NOW, new_id=lambda: "5" * 32, holds=Holds, rules=rules)
    say("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
