"""Files that people write: what is wrong with one is told with its line, whatever it is."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from evidence.errors import ConfigError
from policy.files import Config, Document, load, read, read_text


class Inner(Config):
    """A part."""

    number: int
    """A number."""
    kind: Literal["a", "b"] = "a"
    """A kind."""


class Outer(Config):
    """A file."""

    title: str
    """A text."""
    parts: tuple[Inner, ...] = ()
    """Parts."""
    named: dict[str, Inner] = Field(default_factory=dict)
    """Parts by name."""


TEXT = """\
title: x
parts:
  - number: 1
  - {number: 2, kind: b}
named:
  one:
    number: 3
"""


def fault(text: str) -> str:
    """The error of a text that is wrong."""
    with pytest.raises(ConfigError) as error:
        Document(text, "f.yaml").parse(Outer, "test file")
    return str(error.value)


def test_a_file_is_what_it_says():
    """A good text is read, and each of its parts knows its line."""
    document = Document(TEXT, "f.yaml")
    found = document.parse(Outer, "test file")
    assert (found.parts[1].kind, found.named["one"].number) == ("b", 3)
    assert document.where(("parts", 1, "kind")) == "f.yaml:4"
    assert document.where(("named", "one", "number")) == "f.yaml:7"
    assert document.where(("named", "one", "gone", "deeper")) == "f.yaml:6"
    assert document.where(()) == "f.yaml:1"


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_count_at_every_line_end(end):
    """Line ends of other systems count the same lines."""
    assert fault(TEXT.replace("kind: b", "kind: c").replace("\n", end)).startswith("f.yaml:4: parts.1.kind: ")


def test_a_byte_order_mark_is_no_fault():
    """Some editors write one."""
    assert Document("\ufeff" + TEXT, "f.yaml").parse(Outer, "test file").title == "x"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: x", "titel: x\ntitle: x", "f.yaml:1: titel: unknown field"),
        ("title: x\n", "", "f.yaml:1: title: is missing"),
        ("title: x", "title: 2026-11-24", "f.yaml:1: title: must be a text"),
        ("title: x", "title: [x]", "f.yaml:1: title: must be a text"),
        ("number: 2", "number: two", "f.yaml:4: parts.1.number: must be a whole number"),
        ("number: 2", "number: 2, colour: red", "f.yaml:4: parts.1.colour: unknown field"),
        ("number: 3", "number: .nan", "f.yaml:7: named.one.number: "),
        ("    number: 3\n", "", "f.yaml:6: named.one: "),
    ],
)
def test_a_fault_is_told_with_line_and_field(old, new, said):
    """One fault is one line."""
    told = fault(TEXT.replace(old, new))
    assert told.startswith(said)
    assert "\n" not in told


def test_several_faults_are_told_at_once():
    """Each fault has a line of its own; a field that is missing because its name is misspelt is one fault, not two."""
    told = fault(TEXT.replace("title: x", "titel: x").replace("number: 3", "number: x")).splitlines()
    assert told[0] == "not a test file:"
    assert [line.strip().partition(": ")[0] for line in told[1:]] == ["f.yaml:7", "f.yaml:1"]
    assert told[2].endswith("titel: unknown field; did you mean title?")


def test_what_stands_in_a_file_is_not_repeated():
    """A value that is wrong may be a credential in the wrong place: the error does not say it."""
    assert "hunter2-secret" not in fault(TEXT.replace("number: 2", "number: hunter2-secret"))


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    """A missing file, a folder and too many bytes are errors with the file's name and what it should be."""
    with pytest.raises(ConfigError, match=r"cannot read the test file .*gone\.yaml: No such file"):
        load(tmp_path / "gone.yaml", Outer, "test file")
    with pytest.raises(ConfigError, match=r"cannot read the test file .*: Is a directory"):
        read(tmp_path, "test file")
    large = tmp_path / "large.yaml"
    large.write_bytes(b" " * ((4 << 20) + 1))
    with pytest.raises(ConfigError, match=r"large\.yaml: 4194305 bytes are too many for a test file"):
        read_text(large, "test file")
    large.write_bytes(b"title: a\nparts: \xff\n")
    with pytest.raises(ConfigError, match=r"large\.yaml:2: not UTF-8"):
        load(large, Outer, "test file")


PIECES = st.sampled_from([
    "a", "b: ", "- ", "\n", "\n  ", "{", "}", "[", "]", ", ", ": ", "? ", "| ", "> ", '"', "'", "#", "&x ", "*x",
    "<<: ",
    "!!int ", "!!float ", "!!timestamp ", "!!bool ", "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!!null ", "!!map ",
    "!!seq ", "!!str ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "\t", "0x_", "0b_", "1:99", "-.inf",
    ".nan", "2026-99-99", "2026-11-24T99:00:00Z", "1e999", "=", "~", "null", "\x00", "\x85", "\u2028", "\ufeff", "😀",
    "\\", "@", "`", "-", "_",
])  # fmt: skip


@settings(deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=30)))
def test_any_text_is_read_or_is_an_error_with_a_line(text):
    """Whatever a file holds, it is a document or one error that names a line of it; never anything else."""
    try:
        document = Document(text, "f.yaml")
        document.parse(Outer, "test file")
    except ConfigError as error:
        told = str(error)
        told = told.removeprefix("not a test file:\n  ")
        line = re.match(r"f\.yaml:(\d+): ", told)
        assert line is not None, told
        assert 1 <= int(line[1]) <= len(re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text)) + 1
