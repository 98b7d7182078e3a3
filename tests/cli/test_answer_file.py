"""The file of answers: what an earlier run left is recognised, torn ends are cut off, other files are left alone."""

from __future__ import annotations

import resource
import signal
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import orjson
import pytest

from evidence.errors import ConfigError, UnavailableError
from waybill.cli.lines import Line, parse_lines
from waybill.cli.outfile import AnswerFile

NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
NUMBERS = count(1)


def lines_of(*asked: str, ids: bool = False):
    """Give requests with these texts, under fresh ids or under ids of their own."""
    base = {
        "contractVersion": "1.0", "actor": {"id": "ana"}, "tenant": {"id": "acme"}, "taskType": "question",
        "purpose": "support", "classification": "public",
    }  # fmt: skip
    made = [base | {"input": {"messages": [{"role": "user", "content": text}]}} for text in asked]
    if ids:
        made = [each | {"requestId": f"own-{number}"} for number, each in enumerate(made)]
    return parse_lines(orjson.dumps(made), "x", NOW, lambda: f"fresh-{next(NUMBERS)}")


def answer(request_id: str, outcome: str = "completed") -> dict[str, str]:
    """Give a response."""
    return {"requestId": request_id, "outcome": outcome}


def test_the_same_lines_get_the_ids_that_they_were_sent_under(tmp_path: Path):
    """Lines without ids are recognised by their content, equal ones in turn, wherever they stand in the file now."""
    first = lines_of("one", "two", "one")
    with AnswerFile(tmp_path / "out") as file:
        assert file.recognise(first) == first
        file.note(first, NOW)
        file.write([answer(first[1].request_id)])
    with AnswerFile(tmp_path / "out") as file:
        again = file.recognise(lines_of("new", "one", "two", "one"))
        assert [line.request_id for line in again[1:]] == [
            first[0].request_id,
            first[1].request_id,
            first[2].request_id,
        ]
        assert all(orjson.loads(line.value)["requestId"] == line.request_id for line in again)
        assert file.counts(again) == {"completed": 1}
        assert file.may_be_sent(again) == (True, NOW)
        assert file.may_be_sent(again[:1]) == (False, None)


def test_a_changed_request_under_the_same_id_is_refused(tmp_path: Path):
    """An answer of another question is never taken for the answer."""
    with AnswerFile(tmp_path / "out") as file:
        file.note(file.recognise(lines_of("one", ids=True)), NOW)
    with AnswerFile(tmp_path / "out") as file, pytest.raises(ConfigError, match=r"own-0 .* another content"):
        file.recognise(lines_of("another", ids=True))


def test_own_ids_that_are_not_listed_may_have_been_sent_at_any_time(tmp_path: Path):
    """Where no list says when a request was sent, the whole topic is to be read."""
    with AnswerFile(tmp_path / "out") as file:
        assert file.may_be_sent(lines_of("one", ids=True)) == (True, None)


@pytest.mark.parametrize("name", ["out", "out.sent"])
@pytest.mark.parametrize("kept", [1, 10, 30])
def test_a_torn_last_line_is_cut_off(name, kept, tmp_path: Path):
    """What a killed run left of its last line is gone after the next opening, and nothing else is."""
    lines = lines_of("one", "two")
    with AnswerFile(tmp_path / "out") as file:
        file.note(lines, NOW)
        file.write([answer(line.request_id) for line in lines])
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: 1 + kept])
    with AnswerFile(tmp_path / "out") as file:
        assert file.counts(lines) == {"completed": 2}
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"notes", b"notes\n", b'{"a": 1}\n', b'{"a": 1}', b"[1]\n", b"\n", b"\xff\n"])
def test_a_file_of_something_else_is_left_as_it_is(content, tmp_path: Path):
    """A file that was not written by us is refused, is not changed, and gets nothing beside it."""
    (tmp_path / "out").write_bytes(content)
    with pytest.raises(ConfigError, match="choose another file"):
        AnswerFile(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_runs_do_not_write_to_one_file(tmp_path: Path):
    """A second process is told that the file is in use; afterwards it is free."""
    with AnswerFile(tmp_path / "out"), pytest.raises(ConfigError, match="another `waybill send`"):
        AnswerFile(tmp_path / "out")
    with AnswerFile(tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", [".", "gone/out"])
def test_a_place_that_cannot_be_written_is_named(name, tmp_path: Path):
    """A folder, or a folder that is not there, is an error with the file's name."""
    with pytest.raises(ConfigError, match="cannot write"):
        AnswerFile(tmp_path / name)


def test_a_device_is_refused():
    """Standard output and other devices cannot be read back, so that they are no place to resume from."""
    with pytest.raises(ConfigError, match="--json writes to standard output"):
        AnswerFile(Path("/dev/null"))


def test_answers_are_for_their_owner_alone(tmp_path: Path):
    """Nobody else may read the files."""
    with AnswerFile(tmp_path / "out"):
        pass
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def fill(path: Path, lines: Sequence[Line]) -> None:
    """Write an answer, and a second one for which there is no room."""
    with AnswerFile(path) as file:
        file.note(lines, NOW)
        file.write([answer(lines[0].request_id)])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        file.write([answer(lines[1].request_id)])


def test_a_full_disk_is_a_sentence_and_loses_nothing_that_was_written(tmp_path: Path):
    """Where no more can be written, the file keeps what it has, and says how to go on."""
    lines = lines_of("one", "two")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(UnavailableError, match="the same command goes on"):
            fill(tmp_path / "out", lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    with AnswerFile(tmp_path / "out") as file:
        assert file.outcomes == {lines[0].request_id: "completed"}
