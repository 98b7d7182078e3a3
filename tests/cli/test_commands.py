"""The command line as a program: help, exit codes, errors in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from warm_start import run_program

from streams.brokers.process import free_port
from waybill.cli.program import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    ("dev",),
    ("worker",),
    ("stand-in",),
    ("send",),
    ("receipt",),
    ("trace",),
    ("sql",),
    ("ask",),
    ("doctor",),
    ("topics", "create"),
    ("topics", "list"),
)


def waybill(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user would, without settings of the one who runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WAYBILL_")}
    return run_program("waybill", *arguments, cwd=cwd, env={**inherited, **environment})


def told(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Give what was said on standard error, once exit code and form are right."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command):
    """Every command explains itself with an example that begins as a user would type it."""
    done = waybill(*command, "--help")
    assert done.returncode == 0
    assert f"Example: waybill {' '.join(command)}" in " ".join(done.stdout.split())


def test_version_is_told():
    """`--version` says name and version."""
    done = waybill("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "waybill")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("dev", "--nonsense"),
        ("dev", "--broker", "other"),
        ("dev", "--until-done"),
        ("dev", "--requests", "gone.jsonl"),
        ("worker", "--stages", "cooking"),
        ("worker", "--stages", ","),
        ("worker", "--web-port", "70000"),
        ("send", "gone.jsonl"),
        ("ask", "nonsense"),
        ("ask", "cost", "since"),
        ("ask", "cost", "since=1", "since=2"),
        ("stand-in", "--script", "gone.json"),
        ("topics", "create", "--partitions", "0"),
    ],
    ids=" ".join,
)
def test_usage_and_configuration_errors_exit_with_2(arguments):
    """What the caller can mend is exit code 2 and a sentence, never a traceback."""
    broker = f"127.0.0.1:{free_port()}"
    assert told(waybill(*arguments, WAYBILL_KAFKA=broker), 2)


def test_an_unknown_setting_is_an_error():
    """A misspelt variable is named instead of ignored."""
    assert "WAYBILL_KAFFKA" in told(waybill("topics", "list", WAYBILL_KAFFKA="x"), 2)


def test_a_broken_route_table_stops_dev_before_anything_starts(tmp_path: Path):
    """`dev` reads its files first: nothing has been started when one is wrong."""
    routes = tmp_path / "routes.yaml"
    routes.write_text("version: 1\nroutes: []\n")
    said = told(waybill("dev", "--home", str(tmp_path / "home"), WAYBILL_ROUTES=str(routes)), 2)
    assert "policy_id" in said
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", [("topics", "list"), ("receipt", "some-id"), ("send", "config/requests.jsonl")])
def test_a_missing_broker_is_exit_code_1_in_one_line(command, tmp_path: Path):
    """Where no broker answers, the address is named once, without the client's own noise."""
    broker = f"127.0.0.1:{free_port()}"
    said = told(waybill(*command, "--home", str(tmp_path), "--kafka", broker), 1)
    assert said.count("\n") == 1
    assert broker in said


def test_doctor_names_what_is_missing(tmp_path: Path):
    """Without a run, the doctor says so line by line and exits with 1."""
    done = waybill("doctor", "--home", str(tmp_path), "--kafka", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line[0] in "✗✓"]  # a long line goes on in the next
    checks = ("✗ configuration: ", "✗ broker: ", "✗ topics: ", "✗ clock: ", "✗ worker: ", "✗ site: ", "✓ evidence: ")
    assert len(lines) == len(checks)
    for line, start in zip(lines, checks, strict=True):
        assert line.startswith(start)
    assert "WAYBILL_ENDPOINTS__HOSTED__KIND" in lines[0]


def test_every_command_has_an_example():
    """Each command, those of groups too, explains itself with an example that begins as a user would type it."""
    found = dict(commands(get_command(app), ()))
    assert {" ".join(command) for command in COMMANDS} <= found.keys()
    wrong = [name for name, text in found.items() if f"Example: `waybill {name}" not in " ".join(text.split())]
    assert wrong == []


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Give the name and the help of each command."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command.help or ""


def test_sql_answers_without_a_broker_or_evidence(tmp_path: Path):
    """Questions need nothing but the store's folder, which may be empty."""
    (tmp_path / "evidence").mkdir()
    done = waybill("sql", "select count(*) as n from events", "--format", "json", "--home", str(tmp_path))
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"n": 0}])


def test_sql_that_writes_is_refused(tmp_path: Path):
    """Evidence is read-only from the command line too."""
    (tmp_path / "evidence").mkdir()
    assert "read-only" in told(waybill("sql", "drop view events", "--home", str(tmp_path)), 1)


def test_ask_lists_the_questions(tmp_path: Path):
    """Without a name, `ask` says which questions there are."""
    done = waybill("ask", "--home", str(tmp_path))
    assert done.returncode == 0
    assert "left-the-building" in done.stdout


def test_trace_of_an_unknown_request_says_so(tmp_path: Path):
    """A request that evidence does not know is exit code 1 with what that can mean."""
    (tmp_path / "evidence").mkdir()
    assert "holds nothing of some-id" in told(waybill("trace", "some-id", "--home", str(tmp_path)), 1)
