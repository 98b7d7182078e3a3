"""A witness: it signs what goes on from what it signed before, whatever the log shows, and whatever happens to it."""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import shutil

import pytest
from merkle_logs import FailingDisk, GrownLog, leaves_of, signer

from evidence.errors import ConfigError, StoreError, UnavailableError
from evidence.log.checkpoints import checkpoint
from evidence.log.keys import alone_in
from evidence.log.merkle import EMPTY_ROOT, leaf_hash
from evidence.log.notes import NoteError, Verifier, open_note
from evidence.log.witness import LogForked, LogShrunk, Seen, Witness

HOME, STRANGER = signer(), signer("waybill/abroad", seed=3)
ORIGIN = "waybill/home/id/ai.evidence-0"
LEAVES = leaves_of(700)
FORKED = [*LEAVES[:99], leaf_hash(b"another"), *LEAVES[100:]]
KNOWN = [HOME.verifier]
NOW = 1_795_000_000


def stated(size, leaves=LEAVES, origin=ORIGIN, by=HOME):
    """Give a log of some leaves, and its signed checkpoint."""
    log = GrownLog(leaves[:size])
    root = base64.b64encode(log.tree.root()).decode()
    return by.sign(f"{origin}\n{size}\n{root}\ncommit 1\n"), log.read


@pytest.fixture
def witness(tmp_path):
    """A witness that has seen 300 rows."""
    made = Witness.create(tmp_path / "w", "witness.example/w1")
    note, read = stated(300)
    made.cosign(note, KNOWN, read, at=NOW)
    return made


@pytest.mark.parametrize("size", [300, 301, 512, 700])
def test_what_goes_on_is_signed(witness, size):
    """The same state and each continuation get a cosignature that the witness's verifier key checks."""
    note, read = stated(size)
    signed = witness.cosign(note, KNOWN, read, at=NOW + 60)
    assert signed.startswith(note)
    opened = open_note(signed, [*KNOWN, Verifier.from_vkey(witness.vkey)])
    assert [found.time for found in opened.signatures] == [None, NOW + 60]
    assert witness.seen(ORIGIN) == Seen(size, GrownLog(LEAVES[:size]).tree.root())


def test_a_fork_is_refused(witness):
    """A row that was rewritten is a fork, in the same size and in a larger one, and the witness remembers the truth."""
    for size in (300, 301, 700):
        note, read = stated(size, FORKED)
        with pytest.raises(LogForked, match=rf"{ORIGIN}: FORK: .*300"):
            witness.cosign(note, KNOWN, read, at=NOW)
        assert witness.seen(ORIGIN).size == 300
    note, read = stated(700)
    witness.cosign(note, KNOWN, read, at=NOW)


def test_a_shrunken_log_is_refused(witness):
    """Fewer rows than before are refused by name, and no rows too."""
    for size in (0, 1, 299):
        note, read = stated(size)
        with pytest.raises(LogShrunk, match=f"SHRUNK: it had 300 rows, and now states {size}"):
            witness.cosign(note, KNOWN, read, at=NOW)


def test_the_right_tiles_do_not_help_a_false_root(witness):
    """A signed root that is not that of the tiles is refused, for a continuation and for a log never seen."""
    forked, _ = stated(600, FORKED)
    _, read = stated(600)
    with pytest.raises(LogForked):
        witness.cosign(forked, KNOWN, read, at=NOW)
    first = stated(600, FORKED, origin="waybill/home/id/other-0")[0]
    with pytest.raises(LogForked, match="the tiles do not give the root that is signed for 600 rows"):
        witness.cosign(first, KNOWN, read, at=NOW)
    assert witness.seen("waybill/home/id/other-0") is None


def test_a_damaged_tile_is_refused(witness):
    """A tile that was cut is an error of its own."""
    note, read = stated(600)
    with pytest.raises(StoreError, match="bytes instead of"):
        witness.cosign(note, KNOWN, lambda ref: read(ref)[:-1], at=NOW)


def test_only_a_logs_own_key_speaks_for_it(witness):
    """No signature, that of a stranger, and that of another site whose key is known, count for nothing."""
    note, read = stated(600, by=STRANGER)
    with pytest.raises(NoteError, match="signed by no key that is known"):
        witness.cosign(note, KNOWN, read, at=NOW)
    with pytest.raises(NoteError, match="which is not a key of this log"):
        witness.cosign(note, [*KNOWN, STRANGER.verifier], read, at=NOW)
    for origin in ("waybill/homely/id/a-0", "elsewhere", "waybill"):
        note, read = stated(600, origin=origin)
        with pytest.raises(NoteError, match="which is not a key of this log"):
            witness.cosign(note, KNOWN, read, at=NOW)
        assert witness.seen(origin) is None


def test_each_log_has_a_memory_of_its_own(witness):
    """Logs that a key signs are told apart by their origins."""
    note, read = stated(0, origin="waybill/home/id/other-0")
    witness.cosign(note, KNOWN, read, at=NOW)
    assert witness.seen("waybill/home/id/other-0") == Seen(0, EMPTY_ROOT)
    assert witness.seen(ORIGIN).size == 300


def test_a_witness_remembers(witness, tmp_path):
    """A new process has the same key and the same memory; a cosigned note may be shown again."""
    again = Witness(tmp_path / "w", "witness.example/w1")
    assert again.vkey == witness.vkey
    note, read = stated(300, FORKED)
    with pytest.raises(LogForked):
        again.cosign(note, KNOWN, read, at=NOW)
    with pytest.raises(ConfigError, match=r"key.pem is there already"):
        Witness.create(tmp_path / "w", "witness.example/w1")


def test_an_older_state_is_proved_from_newer_tiles(witness):
    """A checkpoint whose incomplete tiles were replaced is checked with the tiles of the log as it is now."""
    note, _ = stated(600)
    _, read = stated(700)
    with pytest.raises(KeyError):
        witness.cosign(note, KNOWN, read, at=NOW)
    witness.cosign(note, KNOWN, read, at=NOW, stored=700)
    first, _ = stated(600, origin="waybill/home/id/other-0")
    witness.cosign(first, KNOWN, read, at=NOW, stored=700)


@pytest.mark.parametrize("content", ["", "x", "waybill/home/other\n300\n{root}\n", "{origin}\n200\n{root}\n"])
def test_a_damaged_memory_is_no_fresh_start(witness, tmp_path, content):
    """A memory that was changed stops the witness: believing the log anew would let a rewritten history through."""
    [path] = (tmp_path / "w" / "logs").glob("*/*")
    path.write_text(content.format(origin=ORIGIN, root=base64.b64encode(bytes(32)).decode()))
    note, read = stated(700)
    with pytest.raises(ConfigError, match=r"the witness's memory of .* is damaged"):
        witness.cosign(note, KNOWN, read, at=NOW)


def test_it_remembers_before_it_signs(tmp_path):
    """Wherever the disk fails, nothing is signed, and the witness remembers the old state or the new one, whole."""
    Witness.create(tmp_path / "w", "witness.example/w1")
    probe = FailingDisk()
    for size in (300, 600):
        note, read = stated(size)
        shutil.copytree(tmp_path / "w", tmp_path / f"probe{size}")
        Witness(tmp_path / f"probe{size}", "witness.example/w1", disk=probe).cosign(note, KNOWN, read, at=NOW)
        for failing in range(len(probe.steps)):
            folder = tmp_path / f"{size}-{failing}"
            shutil.copytree(tmp_path / "w", folder)
            with pytest.raises(UnavailableError, match="nothing was signed"):
                Witness(folder, "witness.example/w1", disk=FailingDisk(failing)).cosign(note, KNOWN, read, at=NOW)
            after = Witness(folder, "witness.example/w1")
            assert after.seen(ORIGIN) in {checkpointed(note), Witness(tmp_path / "w", "w").seen(ORIGIN)}
            signed = after.cosign(note, KNOWN, read, at=NOW)
            assert open_note(signed, [Verifier.from_vkey(after.vkey)]).signed_by(after.vkey)
            assert after.seen(ORIGIN) == checkpointed(note)
            assert [path.name for path in folder.glob("logs/*/*")] == [f"{size:020d}"]
        Witness(tmp_path / "w", "witness.example/w1").cosign(note, KNOWN, read, at=NOW)
        probe.steps.clear()


def test_a_memory_is_durable_before_it_counts(tmp_path):
    """Content before name, then the name and the folders above it: also where another process made them and died."""
    disk = FailingDisk()
    made = Witness.create(tmp_path / "w", "witness.example/w1")
    folder = hashlib.sha256(ORIGIN.encode()).hexdigest()
    folders = [("sync", folder), ("sync", "logs"), ("sync", "w")]
    note, read = stated(300)
    Witness(tmp_path / "w", "witness.example/w1", disk=disk).cosign(note, KNOWN, read, at=NOW)
    name = f"{300:020d}"
    content = [("write", ".unfinished"), ("sync", ".unfinished"), ("publish", name)]
    assert [step for step in disk.steps if step[0] != "remove"][-6:] == [*content, *folders]
    disk.steps.clear()
    Witness(tmp_path / "w", "witness.example/w1", disk=disk).cosign(note, KNOWN, read, at=NOW)
    assert [step for step in disk.steps if step[0] != "remove"] == folders
    assert made.seen(ORIGIN).size == 300


def test_a_witness_does_one_thing_at_a_time(witness, tmp_path, monkeypatch):
    """While another process looks at a checkpoint, nothing is compared and nothing signed."""
    monkeypatch.setattr("evidence.log.keys._LOCK_WAIT_S", 0.05)
    note, read = stated(600)
    with alone_in(tmp_path / "w"), pytest.raises(UnavailableError, match="another process makes changes"):
        witness.cosign(note, KNOWN, read, at=NOW)
    witness.cosign(note, KNOWN, read, at=NOW)


def checkpointed(note):
    """Give what a witness of a note remembers."""
    found = checkpoint(open_note(note, KNOWN).text)
    return Seen(found.size, found.root)


def attempt(arguments):
    """Ask a witness, in another process, for a cosignature; tell whether it was given."""
    folder, leaves, size = arguments
    note, read = stated(size, leaves)
    try:
        Witness(folder, "witness.example/w1").cosign(note, KNOWN, read, at=NOW)
    except (LogForked, LogShrunk):
        return False
    return True


def test_two_histories_are_not_signed_at_the_same_time(tmp_path):
    """Of two logs that are shown at once, only the one that came first is signed, in every size."""
    Witness.create(tmp_path / "w", "witness.example/w1")
    asked = [(tmp_path / "w", leaves, size) for size in (200, 300, 400) for leaves in (LEAVES, FORKED)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        given = pool.map(attempt, asked, chunksize=1)
    assert any(given)
    assert not (any(given[0::2]) and any(given[1::2]))
