"""Files of requests: what is filled in, what is refused, and with which line number."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import orjson
import pytest

from evidence.errors import ConfigError
from waybill.cli.lines import parse_lines, read

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
GOOD = {
    "contractVersion": "1.0",
    "actor": {"id": "ana"},
    "tenant": {"id": "acme"},
    "taskType": "question",
    "purpose": "support",
    "classification": "public",
    "input": {"messages": [{"role": "user", "content": "Hello?"}]},
}


def lines_of(*contents: object):
    """Read lines, objects as JSON and bytes as they stand."""
    numbers = count(1)
    text = b"\n".join(content if isinstance(content, bytes) else orjson.dumps(content) for content in contents)
    return parse_lines(text, "some.jsonl", NOW, lambda: f"fresh-{next(numbers)}")


def test_absent_id_and_time_are_filled_in():
    """A line without id and time gets a fresh id and the present."""
    (line,) = lines_of(GOOD)
    assert line.request_id == "fresh-1"
    assert orjson.loads(line.value)["timestampUtc"] == "2026-04-01T12:00:00.000Z"


def test_given_id_and_time_are_kept():
    """What a line says itself is sent as it stands."""
    (line,) = lines_of({**GOOD, "requestId": "mine", "timestampUtc": "2026-03-01T00:00:00Z"})
    assert line.request_id == "mine"
    assert orjson.loads(line.value)["timestampUtc"] == "2026-03-01T00:00:00Z"


def test_deadline_in_seconds_becomes_a_moment():
    """A deadline relative to the sending is written as the contract wants it."""
    (line,) = lines_of({**GOOD, "deadlineInSeconds": 90})
    content = orjson.loads(line.value)
    assert content["deadlineUtc"] == "2026-04-01T12:01:30.000Z"
    assert "deadlineInSeconds" not in content


@pytest.mark.parametrize("seconds", [0, -1, 1e300, "60", None, True])
def test_a_deadline_that_is_no_time_ahead_is_refused(seconds):
    """A deadline that is no number of seconds ahead is an error."""
    with pytest.raises(ConfigError, match="line 1: deadlineInSeconds"):
        lines_of({**GOOD, "deadlineInSeconds": seconds})


def test_every_wrong_line_is_named_and_nothing_is_sent():
    """All faults are told at once, each with its line number, blank lines counted."""
    with pytest.raises(ConfigError) as caught:
        lines_of(GOOD, b"", b"{no json", {**GOOD, "contractVersion": "2.0"}, {**GOOD, "colour": "red"}, b"[1]")
    text = str(caught.value)
    assert len(text.splitlines()) == 5
    for number, code in ((3, "not_json"), (4, "unsupported_version"), (5, "unknown_field"), (6, "not_json")):
        assert any(f"line {number}:" in row and code in row for row in text.splitlines())


def test_an_id_that_stands_twice_is_refused():
    """Two lines with one request id would be one request."""
    with pytest.raises(ConfigError, match="line 2: the request id of line 1"):
        lines_of({**GOOD, "requestId": "one"}, {**GOOD, "requestId": "one"})


def test_a_raw_line_goes_out_unchecked():
    """A raw line is sent byte for byte, whatever it holds."""
    (line,) = lines_of({"raw": "{broken"})
    assert (line.value, line.raw) == (b"{broken", True)


def test_a_raw_line_holds_nothing_else():
    """A raw line with other fields is a mistake, not a request."""
    with pytest.raises(ConfigError, match="raw line"):
        lines_of({"raw": "x", "requestId": "y"})


def test_an_empty_file_is_refused():
    """A file without a request is an error that names it."""
    with pytest.raises(ConfigError, match=r"some\.jsonl holds no request"):
        lines_of(b"", b"  ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    """A missing file is told by its name."""
    with pytest.raises(ConfigError, match=r"gone\.jsonl: No such file"):
        read(tmp_path / "gone.jsonl", NOW, lambda: "x")
