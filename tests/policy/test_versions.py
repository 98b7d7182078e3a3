"""Versions of policy: what is in force, what was, and what a machine that dies in between leaves."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from evidence.errors import ConfigError
from policy.versions import Activation, Versions

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def activation(digest: str, previous: str | None = None, **changes: object) -> Activation:
    """Somebody puts a version in force."""
    made = {"digest": digest, "previous": previous, "at": NOW, "by": "user:ana", "reason": "because", **changes}
    return Activation.model_validate(made)


@pytest.fixture
def versions(tmp_path):
    """A folder of versions in which A, B and C are."""
    found = Versions(tmp_path / "policies")
    source = tmp_path / "policy" / "main.cedar"
    source.parent.mkdir()
    for digest in (A, B, C):
        source.write_text(f"// {digest}\n", encoding="utf-8")
        found.add(digest, [source])
    return found


def test_nothing_is_in_force_at_first(tmp_path):
    """In a new home the configured folder counts, and nothing was activated."""
    versions = Versions(tmp_path / "policies")
    assert versions.active() is None
    assert versions.history() == ()
    assert versions.stamp() is None


def test_what_is_activated_is_in_force(versions):
    """The folder of the version is given, with its files as they were added, and the stamp changes each time."""
    stamps = [versions.stamp()]
    for digest, previous in ((A, None), (B, A)):
        versions.activate(activation(digest, previous))
        active = versions.active()
        assert active.activation.digest == digest
        assert (active.folder / "main.cedar").read_text(encoding="utf-8") == f"// {digest}\n"
        stamps.append(versions.stamp())
    assert len(set(stamps)) == 3


def test_a_version_never_changes(versions, tmp_path):
    """Adding other files under a digest that is there changes nothing."""
    other = tmp_path / "main.cedar"
    other.write_text("// other\n", encoding="utf-8")
    folder = versions.add(A, [other])
    assert (folder / "main.cedar").read_text(encoding="utf-8") == f"// {A}\n"


def test_going_back_is_one_more_activation(versions):
    """A rollback is told in the history, after what it takes back."""
    steps = (activation(A), activation(B, A, at=NOW + timedelta(seconds=1)), activation(A, B, rollback=True))
    for step in steps:
        versions.activate(step)
    assert versions.history() == steps
    assert versions.active().activation == steps[-1]


@pytest.mark.parametrize("reason", ["a } b", "line\nbreak", "\u2028 and \x85 are line ends to some", "ä€😀", '"}\\'])
def test_any_reason_can_be_given(versions, reason):
    """A reason may hold whatever people write; the history is still one line each."""
    versions.activate(activation(A, reason=reason))
    versions.activate(activation(B, A))
    assert [one.reason for one in versions.history()] == [reason, "because"]


@pytest.mark.parametrize("cut", [1, 2, 20, 60, 100])
def test_half_a_line_was_never_activated(versions, tmp_path, cut):
    """What a machine that died left of a line does not count, and does not spoil the line after it."""
    versions.activate(activation(A, reason="a } b"))
    path = tmp_path / "policies" / "history.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + activation(B, A, reason="c } d").model_dump_json().encode()[:-cut])
    assert [one.digest for one in versions.history()] == [A]
    versions.activate(activation(C, A))
    assert [one.digest for one in versions.history()] == [A, C]


@pytest.mark.parametrize("text", ["", "{}", "null", "not JSON", '{"digest": "sha256:0"}', "\x00\xff"])
def test_a_record_that_is_none_is_an_error_with_its_place(versions, tmp_path, text):
    """What is in force is never guessed: a record that cannot be read is told, in both files."""
    (tmp_path / "policies" / "active.json").write_text(text, encoding="utf-8")
    (tmp_path / "policies" / "history.jsonl").write_text(f"{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"active\.json is no record of an activation"):
        versions.active()
    with pytest.raises(ConfigError, match=r"history\.jsonl:1 is no record of an activation"):
        versions.history()


def test_bytes_that_are_no_text_are_an_error(versions, tmp_path):
    """A record that is not UTF-8 is told as one that cannot be read."""
    (tmp_path / "policies" / "active.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read .*active\.json: UnicodeDecodeError"):
        versions.active()


def test_a_version_that_is_gone_is_an_error(tmp_path):
    """A record of a version whose files are not there puts nothing in force."""
    versions = Versions(tmp_path / "policies")
    (tmp_path / "policies").mkdir()
    versions.activate(activation(A))
    with pytest.raises(ConfigError, match=r"names version sha256:aaa.* which is not in"):
        versions.active()


def test_a_disk_that_refuses_is_an_error(tmp_path):
    """Where the folder cannot be written, the command is told so."""
    (tmp_path / "policies").write_text("a file", encoding="utf-8")
    source = tmp_path / "main.cedar"
    source.write_text("// a\n", encoding="utf-8")
    versions = Versions(tmp_path / "policies")
    with pytest.raises(ConfigError, match="cannot write to"):
        versions.add(A, [source])
    with pytest.raises(ConfigError, match="cannot write to"):
        versions.activate(activation(A))


DIES = """
import os, sys
from pathlib import Path
from policy.versions import Activation, Versions
home, source, digest, previous, step = sys.argv[1:]
left = [int(step)]
def counted(real):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return real(*args, **kwargs)
    return call
os.fsync = counted(os.fsync)
os.rename, os.replace = counted(os.rename), counted(os.replace)
Path.rename, Path.replace = counted(Path.rename), counted(Path.replace)
versions = Versions(Path(home))
versions.add(digest, [Path(source)])
versions.activate(Activation(digest=digest, previous=previous, at="2026-11-24T12:00:00Z", by="user:ana", reason="r"))
"""


def test_a_machine_that_dies_leaves_the_old_version_or_the_new_one(tmp_path):
    """Killed before each step that touches the disk, the old version is in force; run again, the new one is."""
    home, source = tmp_path / "policies", tmp_path / "main.cedar"
    versions = Versions(home)
    source.write_text("// old\n", encoding="utf-8")
    versions.add(A, [source])
    versions.activate(activation(A))
    source.write_text("// new\n", encoding="utf-8")
    for step in range(20):
        argv = [sys.executable, "-c", DIES, str(home), str(source), B, A]
        ended = subprocess.run([*argv, str(step)], check=False, timeout=60)
        active = versions.active()
        text = (active.folder / "main.cedar").read_text(encoding="utf-8")
        assert text == {A: "// old\n", B: "// new\n"}[active.activation.digest]
        assert {one.digest for one in versions.history()} <= {A, B}
        if ended.returncode == 0:
            break
        assert ended.returncode == 9
    assert step >= 4
    assert ended.returncode == 0
    assert versions.active().activation.digest == B
    assert versions.history()[-1].digest == B


def test_two_at_once(tmp_path):
    """Of several that activate at the same time all are in the history, and one of them is in force, whole."""
    home, source = tmp_path / "policies", tmp_path / "main.cedar"
    source.write_text("// same\n", encoding="utf-8")
    home.mkdir()
    digests = [f"sha256:{number}{'0' * 63}" for number in range(4)] * 2
    running = [
        subprocess.Popen([sys.executable, "-c", DIES, str(home), str(source), digest, A, "1000"]) for digest in digests
    ]
    assert [one.wait(60) for one in running] == [0] * len(digests)
    versions = Versions(home)
    assert sorted(one.digest for one in versions.history()) == sorted(digests)
    active = versions.active()
    assert active.activation.digest in digests
    assert (active.folder / "main.cedar").read_text(encoding="utf-8") == "// same\n"
