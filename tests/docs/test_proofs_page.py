"""The page on proofs: its examples run as they stand there, its program checks packs, and its tables are the code's."""

from __future__ import annotations

import ast
import base64
import json
import re
import subprocess
import sys

import pytest
import typer
from command_rig import Commands
from console_examples import DOCS, examples
from doc_pages import codes, read_table
from packs_made import NAME, Proving, closed, opened

from evidence.store.history import read_commit
from streams.kafka import KafkaSettings
from waybill.cli.consistency import consistency
from waybill.cli.prove import prove
from waybill.cli.verify import verify

PAGE = (DOCS / "proofs.md").read_text(encoding="utf-8")
REQUEST = "req-00000000"
COMMANDS = {"prove": prove, "verify": verify, "consistency": consistency}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Proving:
    """The home of the page's examples."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    monkeypatch.setenv("WAYBILL_SITE", "home")
    monkeypatch.chdir(tmp_path)
    made = Proving.begin(tmp_path)
    made.tell(range(20))
    (tmp_path / "kept.note").write_bytes(read_commit(made.files, NAME, 4).note)
    return made


def plain(text: str) -> list[str]:
    """Give lines without what differs from run to run: moments and keys."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>", text)
    text = re.sub(r"waybill/home\+[0-9a-f]{8}(\+[\w+/=…]+)?", "<key>", text)
    return text.splitlines()


def test_the_examples_run_as_they_are_shown(home, monkeypatch, capsys):
    """Each command of the page prints what stands below it."""
    names = re.findall(r"^\$ waybill (\w+)", PAGE, flags=re.MULTILINE)
    shown = examples("proofs.md")
    assert names == ["prove", "verify", "consistency", "consistency"]
    for name, (arguments, output) in zip(names, shown, strict=True):
        app = typer.Typer()
        app.command()(COMMANDS[name])
        given = [home.ring.vkeys[0] if "+" in argument else argument for argument in arguments]
        said = Commands(app, KafkaSettings("127.0.0.1:9"), monkeypatch, capsys)(*given)
        assert plain(said.out + said.err) == plain(output), name
        assert said.code == 0


def program() -> str:
    """Give the page's program."""
    return PAGE.partition("<!-- the program -->")[2].partition("```python\n")[2].partition("```\n")[0]


def run(data: bytes, key: str, folder) -> subprocess.CompletedProcess[str]:
    """Let the page's program check a pack, in a process that knows nothing of this project."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / "pack.json").write_bytes(data)
    (folder / "elsewhere" / "check.py").write_text(program(), "utf-8")
    command = [sys.executable, "-I", "check.py", "pack.json", key]
    return subprocess.run(command, cwd=folder / "elsewhere", capture_output=True, text=True, check=False)


def test_the_program_of_the_page_checks_every_pack(home, tmp_path):
    """The program needs no more than a pack and a key, and finds the packs of many requests right."""
    for request in list(home.stories)[:8]:
        told = run(home.prove(request).data, home.ring.vkeys[0], tmp_path)
        rows = len(home.stories[request])
        assert (told.returncode, told.stdout) == (0, f"{request}: {rows} rows, all of them in the log\n"), told.stderr


def test_the_program_of_the_page_finds_what_was_changed(home, tmp_path):
    """A changed payload, row, checkpoint or waybill, and another key, are each found."""
    pack, key = home.prove(REQUEST).data, home.ring.vkeys[0]
    payload = bytearray(base64.b64decode(json.loads(pack)["payload"]))
    payload[len(payload) // 2] ^= 1
    changed = json.dumps(json.loads(pack) | {"payload": base64.b64encode(payload).decode()}).encode()
    assert "InvalidSignature" in run(changed, key, tmp_path).stderr
    other = Proving.begin(tmp_path / "other").ring.vkeys[0]
    assert run(pack, other, tmp_path).returncode != 0
    for change, message in (
        (lambda said: said["rows"][1].update(number=0), "is not in the log"),
        (lambda said: said["rows"][1].update(row=said["rows"][1]["row"].replace("home", "away")), "is not in the log"),
        (lambda said: said["waybills"].append("{}"), "a waybill that no row names"),
        (lambda said: said.update(requestId="another"), "a row of another request"),
        (lambda said: said["logs"][0].update(checkpoint="x" + said["logs"][0]["checkpoint"]), "InvalidSignature"),
    ):
        statement = opened(pack)
        change(statement["predicate"])
        told = run(closed(statement, home.ring), key, tmp_path)
        assert told.returncode != 0
        assert message in told.stderr


def test_the_table_of_members_is_that_of_a_pack(home):
    """Each member of a predicate is in the table, and no other; so are those of a log and of a row."""
    said = opened(home.prove(REQUEST).data)["predicate"]
    assert codes(read_table("proofs.md", "## What is in it")) == [*said]
    table = PAGE.partition("## What is in it")[2].partition("## What it shows")[0]
    for part in (said["logs"][0], said["rows"][0], said["stories"][0]):
        assert set(part) <= set(re.findall(r"`(\w+)`", table))


def test_every_kind_of_finding_is_in_the_table():
    """The kinds that the checks of packs give are those of the table, and no other."""
    given = {"form"}
    for module in ("pack", "pack_story", "signed"):
        source = (DOCS.parent / "evidence" / "verify" / f"{module}.py").read_text(encoding="utf-8")
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Untrue":
                given.add(ast.literal_eval(call.args[0]))
    assert set(codes(read_table("proofs.md", "## Check a pack"))) == given
