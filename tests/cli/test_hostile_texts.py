"""Nothing that comes from outside steers the terminal, in any command, and every id is shown exactly."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import re

import orjson
import pytest
from approvals_made import asked, parked
from evidence_samples import stories
from federated_sites import fill
from hostile_texts import HOSTILE, RAW, SHOWN, check_shown, response
from vault_rig import deployment

from evidence.visible import VisibleFormatter, visible, visible_line
from policy.holds import Hold, HoldBook
from policy.identity.jws import SigningKey
from queries.terminal import PlainText, Text
from streams.transactions import Batch, Writer
from waybill.cli import options
from waybill.cli.program import run

FORMS = ("auto", "table", "line", "md")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home whose evidence holds hostile texts, and a terminal so wide that nothing is folded."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    monkeypatch.setattr(options.out, "_width", 100_000)
    monkeypatch.setattr(options.err, "_width", 100_000)
    told = []
    for event in stories(12):
        changed = {"request_id": HOSTILE, "actor_ref": HOSTILE, "tenant_ref": HOSTILE, "purpose": HOSTILE}
        changed |= {"subject_ref": HOSTILE, "task_type": HOSTILE, "detail": HOSTILE}
        if event.route is not None:
            changed["route"] = event.route.model_copy(update={"name": HOSTILE, "model": HOSTILE, "provider": HOSTILE})
        if event.failure is not None:
            changed["failure"] = event.failure.model_copy(update={"code": HOSTILE, "message": HOSTILE})
        if event.classification is not None:
            changed["classification"] = event.classification.model_copy(
                update={"effective": HOSTILE, "findings": (HOSTILE,)}
            )
        told.append(event.model_copy(update=changed))
    fill(tmp_path / "evidence", "local", told)
    return tmp_path


def said(capsys, *arguments, code=0):
    """Run a command as the program does; give what it wrote."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    told = capsys.readouterr()
    check_shown(told.err, whole=False)
    return told


def test_every_sign_is_shown_as_what_it_is():
    """Controls, separators, marks without width and half characters are written out; all else stays as it is."""
    assert visible(HOSTILE) == SHOWN
    assert visible_line("a\nb\tc") == "a\\nb\\tc"
    assert (
        visible("a\nb\tc é 日本 \U0001f469\u200d\U0001f4bb \\x1b") == "a\nb\tc é 日本 \U0001f469\u200d\U0001f4bb \\x1b"
    )
    assert visible("\ud83d\U000e0041") == "\\ud83d\\U000e0041"


@pytest.mark.parametrize("form", FORMS)
def test_answers_of_sql_are_harmless(home, capsys, form):
    """Values, names of columns, and texts within lists and structs are shown, in every form for people."""
    sql = f"select request_id, classification.findings, route, 'x' as \"{HOSTILE.replace(chr(0), '')}\" from events"  # noqa: S608 - that is the test
    told = said(capsys, "sql", sql, "--format", form)
    check_shown(told.out if form != "md" else re.sub(r"\\([\\\[\]])", r"\1", told.out))


def test_data_is_exact(home, capsys):
    """JSON and CSV give the very text; JSON does so without a control character."""
    sql = "select distinct request_id as id from events"
    for arguments in (("--json",), ("--format", "jsonl")):
        told = said(capsys, "sql", sql, *arguments).out
        assert not RAW.search(told)
        assert json.loads(told) in ([{"id": HOSTILE}], {"id": HOSTILE})
    told = said(capsys, "sql", sql, "--format", "csv").out
    assert list(csv.reader(io.StringIO(told, newline="")))[1] == [HOSTILE]


@pytest.mark.parametrize(
    "name",
    [
        "left-the-building",
        "outcomes",
        "by-class",
        "cost",
        "fallbacks",
        "findings",
        "refusals",
        "unknowns",
        "who-sent-what",
    ],
)
def test_named_questions_are_harmless(home, capsys, name):
    """Whatever the answer to a question holds, it is text."""
    check_shown(said(capsys, "ask", name).out, whole=False)


def test_a_story_is_harmless(home, capsys):
    """The timeline shows the request's id, its actor and its routes exactly; as JSON they are exact."""
    check_shown(said(capsys, "trace", HOSTILE).out)
    rows = json.loads(said(capsys, "trace", HOSTILE, "--json").out)
    assert {row["actor_ref"] for row in rows} == {HOSTILE}


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "gone" + HOSTILE),
        ("ask", HOSTILE),
        ("ask", "story", HOSTILE),
        ("ask", "cost", f"since={HOSTILE}"),
        ("sql", f"select {HOSTILE}"),
        ("sql", f"select '{HOSTILE}'::int"),
        ("sql", "--file", "gone" + HOSTILE.replace("\x00", "")),
        (HOSTILE,),
        ("sql", "select 1", f"--{HOSTILE}"),
        ("sql", "select 1", "--format", HOSTILE),
        ("sql", "select 1", "--federated", "--sites", "gone" + HOSTILE.replace("\x00", "")),
        ("consistency", HOSTILE.replace("\x00", ""), HOSTILE.replace("\x00", "")),
        ("hold", "release", HOSTILE, "--reason", "x"),
        ("hold", "place", "--tenant", "acme", "--reason", "x", "--by", HOSTILE),
        ("decisions", "show", HOSTILE),
        ("policy", "check", "gone" + HOSTILE.replace("\x00", "")),
        ("evidence", "checkpoint", HOSTILE),
        ("export", "--to", HOSTILE),
        ("contracts", "show", HOSTILE),
        ("identity", "show", "gone" + HOSTILE.replace("\x00", "")),
        ("identity", "token", "gone" + HOSTILE.replace("\x00", ""), "--sub", "x", "--tenant", "x", "--issuer", "x"),
        ("prove", "gone" + HOSTILE, "--no-receipt", "--unsigned"),
        ("verify", "gone" + HOSTILE.replace("\x00", "")),
        ("send", "gone" + HOSTILE.replace("\x00", "")),
        ("decide", "--request", "gone" + HOSTILE.replace("\x00", "")),
        ("topics", "list", "--kafka", HOSTILE.replace("\x00", "")),
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "replace").decode()[:40],
)
def test_errors_are_harmless(home, capsys, arguments):
    """What an error quotes is text; it is a sentence and no fault of the program."""
    capsys.readouterr()
    code = run(list(arguments))
    told = capsys.readouterr()
    assert code in (1, 2), told
    assert "fault of this program" not in told.err
    check_shown(told.out + told.err, whole=False)


def test_an_argument_that_is_not_text_is_named(home, capsys):
    """An argument that is not UTF-8 is an error of one sentence."""
    told = said(capsys, "sql", "select '\udcff'", code=2)
    assert told.err == "waybill: argument 2 is not utf-8: select '\\udcff'\n"


def test_holds_and_tokens_are_harmless(home, capsys):
    """A hold's scope and reason, and every claim of a token, are shown as they are."""
    book = HoldBook(home / "vault" / "holds")
    at = next(iter(stories(1))).occurred_at_utc
    book.place(Hold(id="a" * 12, subject=HOSTILE, tenant=HOSTILE, reason=HOSTILE * 20, by=HOSTILE, at=at))
    check_shown(said(capsys, "hold", "list").out)
    (held,) = json.loads(said(capsys, "hold", "list", "--json").out)
    assert (held["subject"], held["reason"]) == (HOSTILE, HOSTILE * 20)
    token = home / "token"
    token.write_text(SigningKey.generate().sign({"sub": HOSTILE, HOSTILE: HOSTILE}))
    check_shown(said(capsys, "identity", "show", str(token)).out)


def test_a_log_line_is_one_line():
    """What a log quotes neither acts nor looks like a second line."""
    record = logging.makeLogRecord(
        {"name": "waybill", "levelname": "INFO", "msg": "id %s", "args": (f"{HOSTILE}\nERROR",)}
    )
    told = VisibleFormatter("%(levelname)s %(name)s: %(message)s").format(record)
    assert told == f"INFO waybill: id {SHOWN}\\nERROR"


def test_a_text_cannot_be_styled_by_what_it_holds(capsys):
    """A text that reaches the terminal by another way than `Text` is made harmless there."""
    options.out.print(PlainText("a\x1b[2Jb\u202e"))
    options.out.print(Text("a\x07[bold]b", "bold") + Text("[/x]"))
    assert capsys.readouterr().out == "a\\x1b[2Jb\\u202e\na\\x07[bold]b[/x]\n"


@pytest.mark.kafka
def test_what_topics_hold_is_harmless(home, kafka, prefix, monkeypatch, capsys):
    """Responses, approvals and consent with hostile texts are shown exactly, and one of them hides no other."""
    place = deployment(home, kafka, prefix, monkeypatch)
    place.respond(HOSTILE, orjson.dumps(response(HOSTILE)))
    check_shown(said(capsys, "receipt", HOSTILE).out)
    assert json.loads(said(capsys, "receipt", HOSTILE, "--json").out) == response(HOSTILE)
    told = said(capsys, "receipt", "gone" + HOSTILE, code=1)
    assert f"no response of gone{SHOWN}" in told.err

    async def park():
        writer = await Writer(place.kafka, transactional_id="waybill-admission-0", group="g").start()
        names = ("request_id", "authority", "tenant", "actor_ref", "purpose", "data_class", "route", "resource")
        texts = dict.fromkeys(names, HOSTILE)
        for request in (asked(1, **texts, reasons=(HOSTILE,), findings=(HOSTILE,)), asked(2)):
            await writer.write(Batch(parked(request, place.kafka.name)))
        await writer.stop()

    asyncio.run(park())
    listed = said(capsys, "approvals", "list").out
    check_shown(listed)
    assert "r2" in listed
    check_shown(said(capsys, "approvals", "show", HOSTILE).out)
    assert json.loads(said(capsys, "approvals", "show", HOSTILE, "--json").out)["requestId"] == HOSTILE
    assert said(capsys, "approvals", "show", f"{2:032x}").out
    scope = ("--tenant", HOSTILE, "--subject", HOSTILE, "--purpose", HOSTILE)
    told = said(capsys, "consent", "grant", *scope, "--reference", HOSTILE, "--as", "user:dora")
    check_shown(told.out)
    check_shown(said(capsys, "consent", "list").out)
    check_shown(said(capsys, "consent", "show", *scope).out)
    (entry,) = json.loads(said(capsys, "consent", "list", "--json").out)["consent"]
    assert (entry["subject"], entry["by"]) == (HOSTILE, "user:dora")
