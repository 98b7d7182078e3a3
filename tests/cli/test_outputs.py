"""Where an answer goes and what ends it, on real processes: Ctrl-C, a reader that is gone, a full disk, an encoding."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evidence_samples import stories
from federated_sites import fill

CLI = Path(__file__).resolve().parents[2] / "waybill" / "cli"
HEAVY = [
    ("select count(*) from events a, events b, events c, events d, range(100000)", "table"),
    ("select * from range(0, 1000000000) a(i) order by hash(i)", "table"),
    ("select * from range(100000000000)", "csv"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with evidence."""
    root = tmp_path_factory.mktemp("home")
    fill(root / "evidence", "local", stories(20))
    return root


def begin(home, *arguments, **options):
    """Start the program."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
    environment |= {"WAYBILL_HOME": str(home)} | options.pop("env", {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    return subprocess.Popen([sys.executable, "-m", "waybill", *arguments], env=environment, **options)


def done(home, *arguments, given=None, **options):
    """Run the program; give exit code, output and what it said."""
    if given is not None:
        options["stdin"] = subprocess.PIPE
    with begin(home, *arguments, **options) as process:
        out, err = process.communicate(given, timeout=120)
    return process.returncode, out, err.decode()


def computing(process):
    """Wait until a process has been busy for some seconds, so that it is past its loading."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 5:
            return
        time.sleep(0.1)


@pytest.mark.parametrize(("sql", "form"), HEAVY)
def test_ctrl_c_ends_a_query_at_once(home, sql, form):
    """Exit code 130 within two seconds and without a word, whatever the database is doing."""
    with begin(home, "sql", sql, "--format", form, stdout=subprocess.DEVNULL) as process:
        computing(process)
        assert process.poll() is None
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - begun < 2
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize("wait_s", [0.05, 0.4, 1.0])
def test_ctrl_c_while_it_loads_is_130_too(home, wait_s):
    """A signal before the command has begun ends it in the same way."""
    with begin(home, "ask", "outcomes") as process:
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    # Before Python has come as far as the program, the signal is Python's own.
    assert process.returncode in (130, -signal.SIGINT, 0)
    assert b"fault of this program" not in err
    if wait_s >= 1.0 and process.returncode == 130:
        assert (out, b"Traceback" in err) == (b"", False)


@pytest.mark.parametrize("form", ["csv", "json", "line"])
def test_a_reader_that_has_gone_is_141_without_a_word(home, form):
    """`| head` ends the program quietly."""
    reading, writing = os.pipe()
    with begin(home, "sql", "from range(200000)", "--format", form, "--rows", "200000", stdout=writing) as process:
        os.close(writing)
        os.read(reading, 10)
        os.close(reading)
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ("sql", "from range(200000)", "--format", "csv"),
        ("sql", "select 1"),
        ("ask",),
        ("ask", "outcomes"),
        ("evidence", "files", "--json"),
        ("trace", "req-00000001"),
        ("--help",),
        ("--version",),
    ],
    ids=" ".join,
)
def test_an_output_that_is_full_is_one_sentence(home, arguments):
    """A disk without room is named, with exit code 1."""
    with Path("/dev/full").open("w") as full:
        code, _, err = done(home, *arguments, stdout=full)
    told = [line for line in err.splitlines() if line.startswith("waybill:")]
    assert (code, len(told)) == (1, 1), err
    assert told[0].endswith("No space left on device")
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_an_encoding_that_cannot_hold_it(home):
    """For people a sign is written out, JSON is ASCII, and CSV that would not be exact is an error."""
    sql, env = "select 'é😀' as a", {"PYTHONIOENCODING": "ascii"}
    code, out, err = done(home, "sql", sql, env=env)
    assert (code, err) == (0, "")
    assert b"\\xe9\\U0001f600" in out
    code, out, _ = done(home, "sql", sql, "--json", env=env)
    assert (code, json.loads(out)) == (0, [{"a": "é😀"}])
    code, _, err = done(home, "sql", sql, "--format", "csv", env=env)
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot hold" in err


def test_bytes_that_are_no_text_are_one_sentence(home):
    """An argument, a file or an input that is not UTF-8 is an error of usage."""
    (home / "latin.sql").write_bytes(b"select '\xff'")
    for arguments, given in (
        (("sql", b"select '\xff'"), None),
        (("receipt", b"\xff"), None),
        (("trace", b"\xff"), None),
        (("sql", "--file", str(home / "latin.sql")), None),
        (("sql", "-"), b"select '\xff'"),
    ):
        code, _, err = done(home, *arguments, given=given)
        assert (code, err.count("\n")) == (2, 1), err
        assert "is not utf-8" in err.lower()


@pytest.mark.parametrize(
    "query",
    ["-- a comment\nselect 7 as a", "--comment\nselect 7 as a", "\n\n  -- x\n\n select 7 as a", "/* x */ select 7 as a",
     "--a=b\nselect 7 as a", "--\nselect 7 as a"],
)  # fmt: skip
def test_a_query_may_begin_with_a_comment(home, query):
    """As an argument, from a file and from standard input; a misspelt option still is one."""
    (home / "q.sql").write_text(query)
    for arguments, given in (
        (("sql", query, "--json"), None),
        (("sql", "--json", query), None),
        (("sql", "-", "--json"), query.encode()),
        (("sql", "-f", str(home / "q.sql"), "--json"), None),
    ):
        assert done(home, *arguments, given=given)[:2] == (0, b'[{"a": 7}]\n')


def test_a_query_is_given_once(home):
    """No query, two of them, and two forms are errors of usage; so is an option that is misspelt."""
    for arguments in (
        ("sql",),
        ("sql", "select 1", "--file", "x"),
        ("sql", "select 1", "--json", "--format", "csv"),
        ("sql", "select 1", "--fromat", "csv"),
    ):
        assert done(home, *arguments)[0] == 2


def test_json_is_written_in_one_place():
    """No command prints JSON through the terminal, which would break its lines."""
    for path in CLI.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"out\.print\(\s*(orjson|json)\.dumps|out\.file\.write", text), path
