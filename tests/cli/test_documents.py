"""The forms in which requests are given: told apart whatever their layout, and a broken one named by its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError
from waybill.cli.documents import split

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{}"'), inner),
    max_leaves=8,
)  # fmt: skip
REQUESTS = st.lists(st.dictionaries(st.text('abc{}[],"\\\n\u2028\x85 '), VALUES, max_size=3), min_size=1, max_size=4)


def contents(text: str) -> list[object]:
    """Give the values of the pieces."""
    return [json.loads(piece.content) for piece in split(text.encode(), "some.json")]


@given(REQUESTS, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_every_layout_of_the_same_requests_is_the_same(requests, indent, ascii_only):
    """JSON Lines, an array and documents one after the other give the same requests, however they are indented."""

    def written(value: object, indent: object = indent) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    assert contents("\n".join(written(each, None) for each in requests)) == requests
    assert contents(written(requests)) == requests
    assert contents("\n".join(map(written, requests))) == requests


@pytest.mark.parametrize(
    "text",
    ['\ufeff{"a": 1}', '\r\n{"a": 1}\r\n', '{\r\n"a": 1\r\n}', '  [{"a": 1}]  ', '{"a":\n\n1}'],
)
def test_marks_and_line_ends_do_not_matter(text):
    """A byte order mark, line ends of Windows and blank lines change nothing."""
    assert contents(text) == [{"a": 1}]


def test_places_are_those_of_the_file():
    """A line is named as editors count them, and an element of an array by number and line."""
    assert [piece.place for piece in split(b'\n{"a": 1}\n\n{"b": 2}\n', "x")] == ["line 2", "line 4"]
    assert [piece.place for piece in split(b'[\n {"a": 1},\n {\n"b": 2}, {}]', "x")] == [
        "request 1 (line 2)",
        "request 2 (line 3)",
        "request 3 (line 4)",
    ]
    assert [piece.place for piece in split(b'{\n"a": 1\n}\n{\n"b": 2\n}', "x")] == ["line 1", "line 4"]


def test_one_broken_line_among_others_stays_a_line():
    """A file of lines stays one where single lines are broken, so that each can be named."""
    assert [piece.content for piece in split(b'{"a": 1}\n{broken\n{"b": 2}', "x")] == [
        b'{"a": 1}',
        b"{broken",
        b'{"b": 2}',
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{\n  "a": 1,\n  "b": \n}', "line 4, column 1"),
        (b'{\n  "a": 1\n  "b": 2\n}', "line 3, column 3"),
        (b'[\n{"a": 1},\n', "line 3, column 1"),
        (b"{'a': 1}", "line 1, column 2"),
        (b'{"a": 1', "line 1, column 8"),
        (b"hello", "line 1, column 1"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": \xff}', "line 1 has the byte 0xff"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    ],
    ids=["unfinished", "comma", "open-array", "quotes", "open", "word", "deep", "bytes", "utf-16"],
)
def test_what_is_broken_is_named_by_its_place(text, told):
    """An input of no form is refused with line and column, and with what can be sent where it is text."""
    with pytest.raises(ConfigError, match=r"some\.json") as caught:
        split(text, "some.json")
    assert told in str(caught.value)


def test_an_empty_input_has_no_requests():
    """Nothing and an empty array hold no request."""
    assert [split(text, "x") for text in (b"", b" \n ", b"[]", b"[ ]\n")] == [[], [], [], []]
