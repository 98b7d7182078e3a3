"""`waybill verify` and `waybill evidence`: what an operator, an auditor and a witness type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from evidence_samples import NOON, stories
from store_life import LOG, NAME, rows

from evidence.files.local import LocalFiles
from evidence.log.keys import KeyRing
from evidence.store.site import EvidenceStore
from waybill.cli.program import run

EVENTS = list(stories(12))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path):
    """Give the home of a site with a store of one log, flushed four times."""
    folder = tmp_path / "home"
    ring = KeyRing.create(folder / "keys", "local")
    with EvidenceStore(LocalFiles(folder / "evidence"), "local", ring).open(*LOG) as writer:
        for begin in range(0, len(EVENTS), 25):
            some = EVENTS[begin : begin + 25]
            writer.append(rows(some, first=begin), end=begin + len(some) - 1)
    return folder


def said(capsys, *arguments, home=None, code=0):
    """Run a command; give what it printed, once the exit code is right."""
    capsys.readouterr()
    assert run([*arguments, *(("--home", str(home)) if home else ())]) == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return told.out if code == 0 else told.out + told.err


def test_a_good_store_is_verified(capsys, home):
    """`verify` says how much it derived anew, and what no check of files can see."""
    out = said(capsys, "verify", home=home)
    assert f"OK: {len(EVENTS):,} rows derived anew" in out
    assert "No check of files can see" in out
    report = json.loads(said(capsys, "verify", "--json", home=home))
    assert report["ok"] is True


def test_a_changed_byte_is_named_first_and_the_exit_code_is_1(capsys, home):
    """The first line names the file that was changed."""
    path = next((home / "evidence/events").rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    out = said(capsys, "verify", home=home, code=1)
    assert out.splitlines()[0].startswith("WRONG")
    assert path.name in out.splitlines()[0]


def test_an_auditor_checks_a_copy_with_a_public_key_and_nothing_of_ours(capsys, home, tmp_path):
    """The copied files and the printed key are enough for `python -m evidence.verify`, in a folder without a home."""
    key = said(capsys, "evidence", "keys", home=home).strip()
    (tmp_path / "home.vkey").write_text(key + "\n")
    copy = tmp_path / "copy"
    said(capsys, "evidence", "copy", str(copy), home=home)
    said(capsys, "evidence", "copy", str(copy), home=home)  # again: what is there stays
    done = subprocess.run(
        [sys.executable, "-m", "evidence.verify", str(copy), "--key", f"@{tmp_path / 'home.vkey'}"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"OK: {len(EVENTS)} rows" in done.stdout


def test_commits_that_were_cut_off_are_found_by_a_checkpoint_that_was_kept(capsys, home, tmp_path):
    """Without the kept checkpoint a shorter history looks whole; with it, it does not."""
    kept = tmp_path / "kept.note"
    kept.write_text(said(capsys, "evidence", "checkpoint", home=home))
    commits = sorted((home / f"evidence/logs/{NAME}/commits").iterdir())
    tiles = home / f"evidence/logs/{NAME}/tile"
    size = int(commits[-2].read_text().splitlines()[1])
    last = next(line.split()[1] for line in commits[-1].read_text().splitlines() if line.startswith("add "))
    commits[-1].unlink()
    (home / "evidence" / last).unlink()
    for partial in tiles.rglob("*.p/*"):
        if partial.parent.name == "000.p":
            data = partial.read_bytes()
            partial.unlink()
            partial.with_name(str(size)).write_bytes(data[: 32 * size])
    assert "OK" in said(capsys, "verify", "--open-after", "1e9", home=home)
    out = said(capsys, "verify", "--open-after", "1e9", "--since", str(kept), home=home, code=1)
    assert "cut off" in out


def test_compaction_by_hand_leaves_few_files_and_a_good_proof(capsys, home):
    """`evidence compact` merges the files of the days that are over; the store stays verified."""
    before = said(capsys, "evidence", "files", home=home).count(".parquet")
    said(capsys, "evidence", "compact", home=home)
    after = said(capsys, "evidence", "files", home=home)
    assert (before > 3, after.count(".parquet")) == (True, 1)
    assert "OK" in said(capsys, "verify", home=home)
    assert NAME in said(capsys, "evidence", "logs", home=home)


def test_the_listed_files_are_what_any_reader_of_parquet_takes(capsys, home):
    """`evidence files --sql` is a statement for DuckDB that has every row, and `--json` tells each file's hash."""
    statement = said(capsys, "evidence", "files", "--sql", home=home)
    assert len(duckdb.sql(statement).fetchall()) == len(EVENTS)
    listed = [json.loads(line) for line in said(capsys, "evidence", "files", "--json", home=home).splitlines()]
    assert sum(file["rows"] for file in listed) == len(EVENTS)


def test_a_rotated_key_is_followed_from_the_old_one(capsys, home):
    """After a rotation and a further commit, the key that an auditor got at first still proves everything."""
    old = said(capsys, "evidence", "keys", home=home).strip()
    said(capsys, "evidence", "rotate-key", home=home)
    said(capsys, "evidence", "compact", home=home)
    assert len(said(capsys, "evidence", "keys", home=home).split()) == 2
    assert "OK" in said(capsys, "verify", "--key", old, home=home)


def test_a_witness_signs_what_goes_on_and_refuses_a_fork(capsys, home, tmp_path):
    """The cosignature satisfies `verify --witness`; a log with another history is named as a fork."""
    key = said(capsys, "evidence", "keys", home=home).strip()
    arguments = ("evidence", "cosign", str(tmp_path / "witness"), "--name", "auditor.example", "--key", key)
    witness = said(capsys, *arguments, home=home).strip()
    assert "OK" in said(capsys, "verify", "--witness", witness, home=home)
    other = tmp_path / "other"
    other.mkdir()
    (home / "keys").rename(other / "keys")
    with EvidenceStore(LocalFiles(other / "evidence"), "local", KeyRing(other / "keys", "local")).open(*LOG) as writer:
        writer.append(rows(EVENTS[1:], first=1), end=len(EVENTS) - 1)
        writer.append(rows(EVENTS[:9], first=len(EVENTS)), end=len(EVENTS) + 8)
    assert "FORK" in said(capsys, *arguments, home=other, code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "/nowhere"), "there is no evidence at /nowhere"),
        (("verify", "--key", "nonsense"), "key"),
        (("verify", "--key", "@/nowhere"), "cannot read the key /nowhere"),
        (("verify", "--since", "/nowhere"), "cannot read /nowhere"),
        (("verify", "--since", "a", "--since", "b"), "--since takes one checkpoint"),
        (("verify", "here", "--pack", "p"), "name a store, or a pack"),
        (("evidence", "checkpoint", "other"), "there is no log 'other'"),
        (("evidence", "checkpoint", "--number", "99"), "has no commit 99"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(capsys, home, arguments, message):
    """What was wrong is said, and the exit code is 2."""
    assert message in said(capsys, *arguments, home=home, code=2)


def test_a_copy_into_the_store_itself_is_refused(capsys, home):
    """A copy never lands where the writer writes."""
    for folder in (home / "evidence", home / "evidence/copy"):
        assert "lies in the store itself" in said(capsys, "evidence", "copy", str(folder), home=home, code=2)


def test_a_cosignature_is_good_while_no_rows_are_added(capsys, home, tmp_path):
    """Commits without rows, such as those of an idle hour, need no new cosignature; a commit with rows does."""
    key = said(capsys, "evidence", "keys", home=home).strip()
    arguments = ("evidence", "cosign", str(tmp_path / "witness"), "--name", "auditor.example", "--key", key)
    witness = said(capsys, *arguments, home=home).strip()
    said(capsys, "evidence", "compact", home=home)
    assert "OK" in said(capsys, "verify", "--witness", witness, home=home)
    with EvidenceStore(LocalFiles(home / "evidence"), "local", KeyRing(home / "keys", "local")).open(*LOG) as writer:
        writer.append(rows(list(stories(1, begin=NOON + timedelta(days=9))), first=len(EVENTS)), end=len(EVENTS) + 20)
    assert "rows behind the newest" in said(capsys, "verify", "--witness", witness, home=home, code=1)
