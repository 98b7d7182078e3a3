"""`waybill prove` and `waybill consistency`: files that prove, made and checked from the command line."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from functools import cache

import orjson
import pytest
import typer
from command_rig import Commands
from evidence_samples import story
from packs_made import LOG, NAME, Proving, contracted, crossing, opened, response
from topic_rig import topics

from evidence.errors import ConfigError, StoreError
from evidence.records import EventType
from evidence.store.history import newest, read_commit
from evidence.store.live import read_live
from evidence.verify.pack import verify_pack
from streams.errors import BrokerUnavailable
from streams.kafka import KafkaSettings, producer
from streams.topics import RESPONSES, WORK_HOSTED
from waybill.cli.consistency import consistency
from waybill.cli.prove import prove
from waybill.cli.verify import verify

CROSSED = next(number for number in range(100) if crossing(number))
REQUEST = f"req-{CROSSED:08d}"
NOBODY = KafkaSettings("127.0.0.1:9")


@cache
def twice_crossed() -> int:
    """Give a made-up request that crossed twice, under two contracts."""
    for number in range(1000):
        intents = [event for event in contracted(story(number))[0] if event.event_type is EventType.MODEL_INTENDED]
        if len({event.waybill_hash for event in intents} - {None}) > 1:
            return number
    raise AssertionError


@pytest.fixture(scope="module")
def twenty(tmp_path_factory) -> Proving:
    """Evidence of twenty requests, whose key changed once."""
    made = Proving.begin(tmp_path_factory.mktemp("twenty"))
    made.tell(range(10))
    made.ring.rotate()
    made.tell(sorted({*range(10, 20), twice_crossed()}))
    return made


@pytest.fixture
def home(twenty, tmp_path, monkeypatch) -> Proving:
    """A home with a copy of it for one test."""
    monkeypatch.setenv("WAYBILL_HOME", str(tmp_path))
    monkeypatch.setenv("WAYBILL_SITE", "home")
    monkeypatch.chdir(tmp_path)
    return twenty.copy(tmp_path)


def command(function, kafka, monkeypatch, capsys) -> Commands:
    """Give a command as the program runs it."""
    app = typer.Typer()
    app.command()(function)
    return Commands(app, kafka, monkeypatch, capsys)


@pytest.fixture
def proves(home, monkeypatch, capsys) -> Commands:
    """`waybill prove`, where no broker is."""
    return command(prove, NOBODY, monkeypatch, capsys)


@pytest.fixture
def compares(home, monkeypatch, capsys) -> Commands:
    """`waybill consistency`."""
    return command(consistency, NOBODY, monkeypatch, capsys)


# waybill prove


def test_a_pack_is_written_told_and_checked(home, proves, tmp_path, monkeypatch, capsys):
    """The file is named by the request, what it holds is told, and `waybill verify --pack` finds it right."""
    told = proves(REQUEST, "--no-receipt")
    path = tmp_path / f"{REQUEST}.pack.json"
    rows = len(home.stories[REQUEST])
    assert (told.code, told.out) == (0, "")
    assert f"{path.name}: {rows} rows, 0 waybills, no receipt" in told.err
    assert f"events 0-{rows - 1}, ended" in told.err
    key = re.search(r"waybill verify --pack \S+ --key '(.+)'", told.err)[1]
    assert key == home.ring.vkeys[-1]
    for given in home.ring.vkeys:
        checked = command(verify, NOBODY, monkeypatch, capsys)("--pack", str(path), "--key", given)
        assert (checked.code, f"{rows} rows, each of them in its log" in checked.out) == (0, True)


def test_a_pack_can_be_printed(home, proves):
    """With `--out -` the pack is all that standard output gets."""
    told = proves(REQUEST, "--no-receipt", "--out", "-")
    assert verify_pack(told.out.encode(), home.ring.vkeys).ok


def test_a_store_without_keys_gives_an_unsigned_pack_if_that_is_asked_for(home, proves, tmp_path):
    """Who has a copy of the store and none of its keys says so; without that it is an error that tells."""
    (tmp_path / "keys").rename(tmp_path / "away")
    with pytest.raises(ConfigError, match="--unsigned"):
        proves(REQUEST, "--no-receipt")
    told = proves(REQUEST, "--no-receipt", "--unsigned", "--store", str(tmp_path / "evidence"), "--out", "p.json")
    assert told.code == 0
    report = verify_pack((tmp_path / "p.json").read_bytes(), home.ring.vkeys, unsigned=True)
    assert (report.ok, report.signed_by) == (True, "")


def test_a_request_that_is_not_there_is_told(proves):
    """There is no file, the exit code is 1, and the sentence says why that may be."""
    told = proves("req-unknown", "--no-receipt")
    assert (told.code, "holds nothing of req-unknown" in told.err) == (1, True)


def test_an_id_that_could_be_a_path_becomes_a_plain_name(home, proves, tmp_path, monkeypatch):
    """The default name of the file never leaves the folder."""
    odd = "../../odd id"
    events = [event.model_copy(update={"request_id": odd}) for event in story(77)]
    monkeypatch.setattr("packs_made.story", lambda *_, **__: events)
    home.tell([77])
    assert proves(odd, "--no-receipt").code == 0
    assert (tmp_path / ".._.._odd_id.pack.json").is_file()


def test_without_a_broker_the_way_out_is_told(proves):
    """Where the topics cannot be asked, the error names the flag that does without them."""
    with pytest.raises(BrokerUnavailable, match="--no-receipt"):
        proves(REQUEST)


def test_a_story_with_a_gap_is_not_proved(home, proves):
    """A proof that would not hold is not written, and the error names the event."""
    home.tell([50], left_out=lambda event: event.sequence == 1)
    with pytest.raises(StoreError, match="event 1 of intake"):
        proves("req-00000050", "--no-receipt")


def test_a_file_that_cannot_be_written_is_told(proves, tmp_path):
    """The folder that is not there is a sentence, not a traceback."""
    with pytest.raises(ConfigError, match="cannot write"):
        proves(REQUEST, "--no-receipt", "--out", str(tmp_path / "none" / "p.json"))


def test_compacted_evidence_is_proved_too(home, proves, tmp_path):
    """Rows that an index finds in large files are proved as those in small ones."""
    home.compact()
    assert len(read_live(home.files, NAME).files) == 1
    assert proves(REQUEST, "--no-receipt").code == 0
    assert verify_pack((tmp_path / f"{REQUEST}.pack.json").read_bytes(), home.ring.vkeys[:1]).ok


@pytest.mark.kafka
def test_receipt_and_waybills_come_from_the_topics(home, kafka, prefix, monkeypatch, capsys, tmp_path):
    """The receipt is the response's, without the answer; a contract that it does not hold is in the work record."""
    reached = asyncio.run(topics(kafka, prefix))
    request = f"req-{twice_crossed():08d}"
    events = home.stories[request]
    said = orjson.loads(response(events, home.contracts)) | {"output": {"text": "the answer's text"}}
    intake = events[0].intake_id
    mine = {c.model_route: orjson.loads(c.to_json()) for c in home.contracts.values() if c.intake_id == intake}
    records = [
        (WORK_HOSTED, b"scope", orjson.dumps({"intakeId": "another", "waybills": {}, "mentions": intake})),
        (WORK_HOSTED, b"scope", b"no JSON, but " + intake.encode()),
        (WORK_HOSTED, b"scope", orjson.dumps({"intakeId": intake, "sealed": "closed", "waybills": mine})),
        (RESPONSES, request.encode(), orjson.dumps(said)),
    ]

    async def write() -> None:
        made = producer(reached)
        await made.start()
        for topic, key, value in records:
            await made.send_and_wait(reached.name(topic), value, key=key)
        await made.stop()

    asyncio.run(write())
    told = command(prove, reached, monkeypatch, capsys)(request, "--out", "p.json")
    assert "2 waybills, the receipt" in told.err
    data = (tmp_path / "p.json").read_bytes()
    report = verify_pack(data, home.ring.vkeys)
    assert (report.ok, report.receipt, report.waybills, report.notes) == (True, True, 2, [])
    assert b"the answer's text" not in base64.b64decode(json.loads(data)["payload"])
    assert "sealed" not in json.dumps(opened(data))


# waybill consistency


def test_a_kept_checkpoint_is_consistent_with_the_store(home, compares, tmp_path):
    """A checkpoint that was kept in a file, and the log by its name: the exit code is 0, and the sizes are told."""
    (tmp_path / "kept.note").write_bytes(read_commit(home.files, NAME, 4).note)
    told = compares("kept.note", NAME, "--key", home.ring.vkeys[0])
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"consistent: waybill/home/{LOG[0]}/{LOG[1]}-0: the ")
    assert "begin with the" in told.out


def test_commits_are_named_by_their_numbers(home, compares):
    """Numbers are commits of the one log that there is; the site's own keys are taken where none is given."""
    told = compares("2", str(newest(home.files, NAME)))
    assert (told.code, told.err) == (0, "")


def test_standard_input_can_be_a_checkpoint(home, compares, monkeypatch):
    """`-` reads a note."""
    note = read_commit(home.files, NAME, 4).note
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(note)))
    assert compares("-", NAME).code == 0


def test_a_proof_is_checked_elsewhere_with_a_key_alone(home, compares, tmp_path):
    """The file that `--out` wrote is checked without the store; without a key that is said."""
    (tmp_path / "key").write_text(home.ring.vkeys[0] + "\n", "utf-8")
    assert compares("2", NAME, "--out", "proof.json").code == 0
    (tmp_path / "evidence").rename(tmp_path / "gone")
    told = compares("--proof", "proof.json", "--key", "@key")
    assert (told.code, told.err) == (0, "")
    told = compares("--proof", "proof.json")
    assert (told.code, "was not checked" in told.err) == (0, True)


def test_a_fork_is_named_and_fails(home, compares, tmp_path):
    """A kept checkpoint of another history ends with exit code 1 and the word for it."""
    other = Proving.begin(tmp_path / "other")
    other.tell(range(30, 35))
    (tmp_path / "kept.note").write_bytes(read_commit(other.files, NAME, 3).note)
    told = compares("kept.note", NAME, "--key", other.ring.vkeys[0], "--key", home.ring.vkeys[0])
    assert (told.code, told.out.startswith("NOT consistent: "), "FORK" in told.out) == (1, True, True)


def test_a_checkpoint_of_nobody_who_is_trusted_is_named(home, compares, tmp_path):
    """A note that another key signed is not called a fork of this log."""
    other = Proving.begin(tmp_path / "other")
    other.tell(range(30, 35))
    (tmp_path / "kept.note").write_bytes(read_commit(other.files, NAME, 3).note)
    told = compares("kept.note", NAME)
    assert (told.code, "signed by none of the keys" in told.out, "FORK" in told.out) == (1, True, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name two checkpoints"),
        (("1",), "name two checkpoints"),
        (("1", "999"), "has no commit 999"),
        (("1", "nothing"), "cannot read nothing"),
        (("-", "-"), "not both"),
        (("1", "2", "--log", "a.b-0"), "has no log a.b-0"),
        (("1", "2", "--key", "nonsense"), "--key: a verifier key is"),
        (("1", "2", "--key", "@nothing"), "cannot read the key nothing"),
        (("1", "2", "--out", "none/p.json"), "cannot write none/p.json"),
        (("1", "2", "--store", "none"), "there is no evidence at"),
        (("1", "--proof", "p.json"), "names? no others"),
        (("wrong.note", NAME), "is no checkpoint"),
    ],
)
def test_what_cannot_be_compared_is_an_error_that_tells(compares, tmp_path, arguments, message):
    """Each misuse is one sentence, and never a traceback."""
    (tmp_path / "wrong.note").write_bytes(b"\xffno note")
    with pytest.raises(ConfigError, match=message):
        compares(*arguments)


def test_an_unreadable_proof_is_named(compares, tmp_path):
    """A file that is no proof fails with what is wrong with it."""
    (tmp_path / "p.json").write_bytes(b"{}")
    told = compares("--proof", "p.json")
    assert (told.code, "there is no `commits`" in told.out) == (1, True)
