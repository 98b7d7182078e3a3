"""Consistency proofs: what only grew is shown to, and a log that was rewritten or cut off is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packs_made import LOG, NAME, Proving

from evidence.consistency import PROOF_TYPE, prove
from evidence.errors import StoreError
from evidence.files.local import LocalFiles
from evidence.log.witness import Witness
from evidence.store.history import newest, read_commit
from evidence.store.site import EvidenceStore
from evidence.store.state import tile_reader
from evidence.verify.consistency import verify_consistency


class Case:
    """A log whose key changed twice, and another history of the same log, signed with the same keys."""

    def __init__(self, root) -> None:
        self.made = Proving.begin(root)
        self.ring = self.made.ring
        self.fork = Proving(EvidenceStore(LocalFiles(root / "fork"), "home", self.ring), self.ring, {}, {})
        for part in range(3):
            self.made.tell(range(part * 8, part * 8 + 8))
            self.fork.tell(range(100 + part * 9, 100 + part * 9 + 9))
            if part < 2:
                self.ring.rotate()
        self.newest = newest(self.made.files, NAME)
        self.root = root

    def note(self, number, files=None):
        """Give a commit's note."""
        return read_commit(files or self.made.files, NAME, number).note

    def prove(self, old, new):
        """Give the proof between two commits."""
        return prove(self.made.files, NAME, self.note(old), self.note(new))


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    """The case of all tests here; none of them changes it."""
    return Case(tmp_path_factory.mktemp("case"))


def test_every_two_commits_of_a_log_are_consistent(case):
    """Whichever two commits are compared, the proof holds, with the key that signed the older one and over changes."""
    for old in range(0, case.newest + 1, 3):
        for new in range(old, case.newest + 1, 4):
            report = verify_consistency(case.prove(old, new), case.ring.vkeys[:1])
            if old <= first_change(case):
                assert (report.ok, report.signed) == (True, True), (old, new, report.what)
            assert verify_consistency(case.prove(old, new), case.ring.vkeys).ok, (old, new)


def first_change(case):
    """Give the commit by which the key first changed."""
    return next(n for n in range(case.newest) if read_commit(case.made.files, NAME, n).commit.key)


def test_without_a_key_only_the_hashes_are_checked(case):
    """A proof can be checked without a key, and the result says that nobody's signature was."""
    report = verify_consistency(case.prove(3, case.newest))
    assert (report.ok, report.signed) == (True, False)


def test_a_key_that_follows_only_later_is_not_enough(case):
    """Who holds the newest key alone cannot tell who signed the older checkpoint."""
    report = verify_consistency(case.prove(3, case.newest), case.ring.vkeys[-1:])
    assert (report.ok, report.kind) == (False, "untrusted")


def test_a_note_that_was_kept_with_cosignatures_is_as_good(case, tmp_path):
    """The older checkpoint may be the witnessed one, whose file has a signature more than the log's own."""
    witness = Witness.create(tmp_path / "w", "auditor")
    reader = tile_reader(case.made.files, NAME)
    note = witness.cosign(case.note(case.newest), case.ring.verifiers, reader, at=1)
    report = verify_consistency(prove(case.made.files, NAME, note, note), case.ring.vkeys)
    assert report.ok, report.what
    late = case.made.copy(tmp_path / "later")
    late.tell([90])
    new = read_commit(late.files, NAME, newest(late.files, NAME)).note
    report = verify_consistency(prove(late.files, NAME, note, new), case.ring.vkeys)
    assert report.ok, report.what


def test_a_rewritten_log_is_a_fork(case):
    """Whoever kept a checkpoint of another history sees that the store does not go on from it; both are signed."""
    kept = case.note(10, case.fork.files)
    report = verify_consistency(prove(case.made.files, NAME, kept, case.note(case.newest)), case.ring.vkeys)
    assert (report.ok, report.kind, report.signed) == (False, "fork", True)
    assert "FORK" in report.what


def test_two_commits_of_one_number_are_a_fork(case):
    """Two different commits with one number are named, whatever their trees."""
    kept = case.note(case.newest, case.fork.files)
    mine = case.note(case.newest)
    report = verify_consistency(prove(case.made.files, NAME, mine, mine), case.ring.vkeys)
    assert report.ok
    said = json.loads(prove(case.made.files, NAME, mine, mine)) | {"old": kept.decode()}
    report = verify_consistency(json.dumps(said).encode(), case.ring.vkeys)
    assert (report.ok, report.kind in {"fork", "shrunk"}) == (False, True)


def test_a_log_that_was_cut_off_has_shrunk(case):
    """A newer checkpoint that states fewer rows is named; so is a store that has fewer rows than a kept checkpoint."""
    report = verify_consistency(case.prove(case.newest, 2), case.ring.vkeys)
    assert (report.ok, report.kind, "SHRUNK" in report.what) == (False, "shrunk", True)
    longer = case.made.copy(case.root / "longer")
    longer.tell([91])
    note = read_commit(longer.files, NAME, newest(longer.files, NAME)).note
    with pytest.raises(StoreError, match="SHRUNK"):
        prove(case.made.files, NAME, case.note(2), note)


def test_a_log_that_is_not_there_is_an_error(case, tmp_path):
    """A store without the log says so."""
    with pytest.raises(StoreError, match="has no log"):
        prove(LocalFiles(tmp_path), NAME, case.note(1), case.note(2))


CHANGES = {
    "another type": ("type", lambda p: p.update(type=PROOF_TYPE + "0")),
    "no old one": ("form", lambda p: p.pop("old")),
    "a member more": ("form", lambda p: p.update(more=1)),
    "an old one that is none": ("note", lambda p: p.update(old="nothing\n")),
    "the old one's size": ("signature", lambda p: p.update(old=p["old"].replace("-0\n", "-0\n1", 1))),
    "the new one's next": ("signature", lambda p: p.update(new=p["new"].replace("\nnext ", "\nnext 1", 1))),
    "another log": (
        "other-log",
        lambda p: p.update(old=p["old"].replace("/home/", "/away/", 1).replace("=home/", "=away/")),
    ),
    "the changes of keys left out": ("signature", lambda p: p.update(commits=[])),
    "a hash left out": ("fork", lambda p: p["proof"].pop()),
    "a hash more": ("fork", lambda p: p["proof"].append("A" * 43 + "=")),
    "a hash that is none": ("form", lambda p: p["proof"].append("A")),
    "hashes the other way round": ("fork", lambda p: p["proof"].reverse()),
    "a number for the proof": ("form", lambda p: p.update(proof=7)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_proof_is_found(case, name):
    """Each change of a proof's file is found and named."""
    kind, change = CHANGES[name]
    said = json.loads(case.prove(3, case.newest))
    change(said)
    report = verify_consistency(json.dumps(said).encode(), case.ring.vkeys[:1])
    assert (report.ok, report.kind) == (False, kind), report.what


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(case, data):
    """One byte of a proof changed is found, or leaves the JSON value as it is; nothing crashes."""
    whole = case.prove(3, case.newest)
    at = data.draw(st.integers(0, len(whole) - 1))
    mutated = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    try:
        same = json.loads(mutated.decode()) == json.loads(whole)
    except ValueError:
        same = False
    assert verify_consistency(mutated, case.ring.vkeys[:1]).ok is same


def test_the_log_of_the_tests_is_one_whose_keys_change(case):
    """There are enough commits and changes of keys for the tests above to mean something."""
    changes = [n for n in range(case.newest) if read_commit(case.made.files, NAME, n).commit.key]
    assert (len(changes), case.newest > 20, LOG[2]) == (2, True, 0)
