"""Packs that were tampered with: each change is found, named, and never a traceback."""

# ruff: noqa: ARG005, PLW0108 - all changes have one form, whether they need the case or not

from __future__ import annotations

import base64
import copy
import hashlib
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packs_made import LOG, NAME, Proving, closed, crossing, opened

from evidence.files.local import LocalFiles
from evidence.log.witness import Witness
from evidence.pack import PAYLOAD_TYPE, key_changes
from evidence.store.history import read_commit
from evidence.store.layout import LogPartition
from evidence.store.site import EvidenceStore
from evidence.store.state import read_head, tile_reader
from evidence.verify.notes import NoteError
from evidence.verify.pack import PREDICATE_TYPE, STATEMENT_TYPE, verify_pack

CROSSED = next(number for number in range(100) if crossing(number))
REQUEST = f"req-{CROSSED:08d}"
OTHER = f"req-{CROSSED + 1:08d}"


class Case:
    """A store whose key changed once, with a witness; a pack of it; and another log that signs with the same key."""

    def __init__(self, root) -> None:
        self.made = Proving.begin(root)
        self.ring = self.made.ring
        self.foreign = Proving(
            EvidenceStore(LocalFiles(root / "foreign"), "home", self.ring), self.ring, {}, {}, log=("other", "topic", 0)
        )
        self.fork = Proving(EvidenceStore(LocalFiles(root / "fork"), "home", self.ring), self.ring, {}, {})
        logs = ((self.made, 0), (self.foreign, 0), (self.fork, 30))
        for proving, first in logs:
            proving.tell(range(first, first + 20))
        self.ring.rotate()
        for proving, first in logs:
            proving.tell(range(first + 20, first + 25))
        self.witness = Witness.create(root / "witness", "auditor")
        head = read_head(self.made.files, LogPartition(*LOG))
        read = tile_reader(self.made.files, NAME)
        self.cosigned = self.witness.cosign(head.noted.note, self.ring.verifiers, read, at=1_770_000_000)
        self.made.files.create(f"logs/{NAME}/witness/auditor/{head.commit.number:012d}", self.cosigned)
        self.made.tell([25])
        self.pack = self.made.prove(REQUEST).data
        self.statement = opened(self.pack)
        self.other = opened(self.made.prove(OTHER).data)
        self.strange = Proving.begin(root / "strange", site="strange")
        self.strange.tell(range(20))

    def check(self, data, **options):
        """Check a pack with the first key and the witness."""
        return verify_pack(data, [self.ring.vkeys[0]], [self.witness.vkey], **options)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    """The case of all tests here; none of them changes it."""
    return Case(tmp_path_factory.mktemp("case"))


def test_the_pack_is_right_before_anybody_touches_it(case):
    """Put together again without a change, and signed anew, the pack is right: below, only the change is wrong."""
    assert case.check(case.pack).ok, case.check(case.pack).first
    again = case.check(closed(case.statement, case.ring))
    assert again.ok, again.first
    assert (again.rows, again.receipt, again.waybills) == (len(case.made.stories[REQUEST]), True, 1)


def row_of(said, place, **changes):
    """Change a row's text, and let its subject fit."""
    row = said["predicate"]["rows"][place]
    row["row"] = json.dumps(json.loads(row["row"]) | changes, separators=(",", ":"), sort_keys=True)
    said["subject"][place]["digest"]["sha256"] = hashlib.sha256(row["row"].encode()).hexdigest()


def without(said, place):
    """Leave a row out, and let everything else fit."""
    del said["predicate"]["rows"][place], said["subject"][place]
    sequences = [json.loads(item["row"])["sequence"] for item in said["predicate"]["rows"]]
    last = json.loads(said["predicate"]["rows"][-1]["row"])
    spans = f"0-{place - 1},{place + 1}-{sequences[-1]}" if place < len(sequences) else f"0-{sequences[-1]}"
    said["predicate"]["stories"][0] |= {"events": spans, "ended": last["eventType"] == "request.ended"}


def receipt_of(said, **changes):
    """Change the response that a pack holds."""
    response = json.loads(said["predicate"]["receipt"])
    for name, value in changes.items():
        (response if name in response else response["receipt"])[name] = value
    said["predicate"]["receipt"] = json.dumps(response)


def checkpoint_of(said, old, new):
    """Change a checkpoint's text."""
    log = said["predicate"]["logs"][0]
    assert old in log["checkpoint"]
    log["checkpoint"] = log["checkpoint"].replace(old, new, 1)


TAMPERINGS = {
    "a row's text": ("inclusion", lambda s, c: row_of(s, 2, stage="nobody")),
    "a row's outcome": ("inclusion", lambda s, c: row_of(s, -1, outcome="denied")),
    "a blank in a row's text": (
        "inclusion",
        lambda s, c: s["predicate"]["rows"][0].update(row=s["predicate"]["rows"][0]["row"].replace(":", ": ", 1)),
    ),
    "a row that is no JSON": ("form", lambda s, c: s["predicate"]["rows"][0].update(row="{")),
    "a row that is no event": ("form", lambda s, c: s["predicate"]["rows"][0].update(row="{}")),
    "a row's number": ("inclusion", lambda s, c: s["predicate"]["rows"][1].update(number=0)),
    "a row's number behind the log": ("inclusion", lambda s, c: s["predicate"]["rows"][1].update(number=10**9)),
    "a number below zero": ("form", lambda s, c: s["predicate"]["rows"][1].update(number=-1)),
    "a number that is true": ("form", lambda s, c: s["predicate"]["rows"][1].update(number=True)),
    "a proof of another row": (
        "inclusion",
        lambda s, c: s["predicate"]["rows"][1].update(proof=s["predicate"]["rows"][2]["proof"]),
    ),
    "a proof cut off": ("inclusion", lambda s, c: s["predicate"]["rows"][1]["proof"].pop()),
    "a proof with a hash more": ("inclusion", lambda s, c: s["predicate"]["rows"][1]["proof"].append("A" * 43 + "=")),
    "a hash of another length": ("form", lambda s, c: s["predicate"]["rows"][1]["proof"].append("AAAA")),
    "a hash with bits behind it": (
        "form",
        lambda s, c: s["predicate"]["rows"][1].update(proof=["A" * 42 + "B="]),
    ),
    "two rows the other way round": ("order", lambda s, c: swap(s["predicate"]["rows"], s["subject"])),
    "a row twice": ("repeated", lambda s, c: twice(s)),
    "a row left out of the middle": ("story", lambda s, c: without(s, 3)),
    "the first row left out": ("story", lambda s, c: first_gone(s)),
    "all rows left out": ("log", lambda s, c: s["predicate"].update(rows=[], stories=[]) or s.update(subject=[])),
    "a row of another request": ("other-request", lambda s, c: slipped(s, c)),
    "the request's id": ("other-request", lambda s, c: s["predicate"].update(requestId=OTHER)),
    "a row of another log": ("other-log", lambda s, c: s["predicate"]["rows"][0].update(log="waybill/home/x/y-0")),
    "a subject's digest": ("subject", lambda s, c: s["subject"][0]["digest"].update(sha256="0" * 64)),
    "a subject's name": ("subject", lambda s, c: s["subject"][0].update(name="another")),
    "a subject more": ("subject", lambda s, c: s["subject"].append(s["subject"][0])),
    "a subject with two digests": ("form", lambda s, c: s["subject"][0]["digest"].update(md5="0")),
    "a checkpoint's size": ("signature", lambda s, c: checkpoint_of(s, "-0\n1", "-0\n2")),
    "a checkpoint of a rewritten log": ("inclusion", lambda s, c: of_fork(s, c)),
    "a checkpoint's next": ("signature", lambda s, c: checkpoint_of(s, "\nnext ", "\nnext 9")),
    "a checkpoint of another log of the site": ("other-log", lambda s, c: of_other_log(s, c)),
    "a checkpoint and rows of another log": ("other-log", lambda s, c: all_of_other_log(s, c)),
    "a checkpoint of another site": ("untrusted", lambda s, c: of_strange_site(s, c)),
    "a checkpoint that is none": ("note", lambda s, c: s["predicate"]["logs"][0].update(checkpoint="nothing\n")),
    "an empty checkpoint": ("form", lambda s, c: s["predicate"]["logs"][0].update(checkpoint="")),
    "a signature of a strange key": ("signature", lambda s, c: extra_signature(s, c)),
    "a log twice": ("log", lambda s, c: s["predicate"]["logs"].append(s["predicate"]["logs"][0])),
    "no log": ("log", lambda s, c: s["predicate"].update(logs=[])),
    "the change of keys left out": ("untrusted", lambda s, c: s["predicate"]["logs"][0].update(commits=[])),
    "the change of keys twice": ("order", lambda s, c: s["predicate"]["logs"][0]["commits"].append(note_of_change(s))),
    "the change of keys with another key": ("note", lambda s, c: other_key(s)),
    "a commit of another log": ("other-log", lambda s, c: commit_of_other_log(s, c)),
    "a story's events": ("story", lambda s, c: s["predicate"]["stories"][0].update(events="0-99")),
    "a story's end": ("story", lambda s, c: s["predicate"]["stories"][0].update(ended=False)),
    "a story's end as a number": ("story", lambda s, c: s["predicate"]["stories"][0].update(ended=1)),
    "a story's intake": ("story", lambda s, c: s["predicate"]["stories"][0].update(intakeId="another")),
    "a story more": ("story", lambda s, c: s["predicate"]["stories"].append({"intakeId": "x"})),
    "no story": ("story", lambda s, c: s["predicate"].update(stories=[])),
    "a waybill's text": ("waybill", lambda s, c: waybill_text(s, "eu-central-1", "us-east-1")),
    "a blank in a waybill": ("waybill", lambda s, c: waybill_text(s, ":", ": ")),
    "a waybill of another request": ("waybill", lambda s, c: s["predicate"].update(waybills=foreign_waybill(c))),
    "a waybill twice": ("waybill", lambda s, c: s["predicate"]["waybills"].append(s["predicate"]["waybills"][0])),
    "a waybill that is a number": ("form", lambda s, c: s["predicate"].update(waybills=[7])),
    "a receipt of another request": (
        "receipt",
        lambda s, c: s["predicate"].update(receipt=c.other["predicate"]["receipt"]),
    ),
    "a receipt's request id": ("receipt", lambda s, c: receipt_of(s, requestId=OTHER)),
    "a receipt's outcome": ("receipt", lambda s, c: receipt_of(s, outcome="denied")),
    "a receipt's trace": ("receipt", lambda s, c: receipt_of(s, traceId="0" * 32)),
    "a receipt's intent": ("receipt", lambda s, c: receipt_of(s, attempts=[{"intentId": "another"}])),
    "a receipt's attempts": ("receipt", lambda s, c: receipt_of(s, attempts=7)),
    "a receipt that says that nothing left": ("receipt", lambda s, c: receipt_of(s, leftTheSite=False)),
    "a receipt's waybill": ("receipt", lambda s, c: receipt_of(s, waybill={"intakeId": "another"})),
    "a receipt's digest": ("receipt", lambda s, c: receipt_of(s, waybillHash="0" * 64)),
    "a receipt with an answer": ("form", lambda s, c: with_answer(s)),
    "a receipt without a receipt": ("form", lambda s, c: receipt_of(s, receipt=None)),
    "a receipt that is no JSON": ("form", lambda s, c: s["predicate"].update(receipt="7,")),
    "a witness's note": ("witness", lambda s, c: witness_of(s, signature=True)),
    "a witness's text": ("witness", lambda s, c: witness_of(s, text=True)),
    "a witness's proof": ("witness", lambda s, c: witness_of(s, proof=True)),
    "a witness left out": ("witness", lambda s, c: s["predicate"]["logs"][0].update(witnesses=[])),
    "a witness of another log": ("other-log", lambda s, c: witness_elsewhere(s, c)),
    "a member more": ("form", lambda s, c: s["predicate"].update(more=1)),
    "a member less": ("form", lambda s, c: s["predicate"].pop("waybills")),
    "a log with a member more": ("form", lambda s, c: s["predicate"]["logs"][0].update(more=1)),
    "rows that are an object": ("form", lambda s, c: s["predicate"].update(rows={})),
    "a predicate that is a list": ("form", lambda s, c: s.update(predicate=[])),
    "another predicate type": ("type", lambda s, c: s.update(predicateType=PREDICATE_TYPE[:-1] + "2")),
    "another statement type": ("type", lambda s, c: s.update(_type=STATEMENT_TYPE[:-1] + "2")),
}  # fmt: skip


def swap(*lists):
    """Let two neighbours change places in each list."""
    for items in lists:
        items[1], items[2] = items[2], items[1]


def twice(said):
    """Let a row stand twice."""
    said["predicate"]["rows"].insert(1, said["predicate"]["rows"][0])
    said["subject"].insert(1, said["subject"][0])


def first_gone(said):
    """Leave the first row out, and let everything else fit."""
    del said["predicate"]["rows"][0], said["subject"][0]
    said["predicate"]["stories"][0]["events"] = f"1-{len(said['subject'])}"


def slipped(said, case):
    """Put a row of another request, with its good proof, between the others."""
    rows = said["predicate"]["rows"] + [case.other["predicate"]["rows"][0]]
    said["predicate"]["rows"] = sorted(rows, key=lambda item: item["number"])


def of_other_log(said, case):
    """Take the checkpoint of another log of the site, and leave the rest."""
    log = opened(case.foreign.prove(REQUEST).data)["predicate"]["logs"][0]
    said["predicate"]["logs"][0]["checkpoint"] = log["checkpoint"]


def of_fork(said, case):
    """Take the checkpoint of another history of the same log."""
    number = read_head(case.fork.files, LogPartition(*LOG)).commit.number
    log = said["predicate"]["logs"][0]
    log["checkpoint"] = read_commit(case.fork.files, NAME, number).note.decode()
    log["commits"] = [note.decode() for note in key_changes(case.fork.files, NAME, 0, number)]


def all_of_other_log(said, case):
    """Say that the rows are of another log of the site."""
    log = opened(case.foreign.prove(REQUEST).data)["predicate"]["logs"][0]
    said["predicate"]["logs"] = [log | {"witnesses": []}]


def of_strange_site(said, case):
    """Take log, rows and all of another site."""
    strange = opened(case.strange.prove(REQUEST).data)
    said.clear()
    said.update(strange)


def extra_signature(said, case):
    """Add a strange key's good signature to the checkpoint."""
    log = said["predicate"]["logs"][0]
    text = log["checkpoint"].rpartition("\n\n")[0] + "\n"
    log["checkpoint"] += case.strange.ring.newest().line(text)


def note_of_change(said):
    """Give the commit by which the key changed."""
    return said["predicate"]["logs"][0]["commits"][0]


def other_key(said):
    """Let the commit by which the key changed name another one."""
    note = note_of_change(said)
    line = next(line for line in note.split("\n") if line.startswith("key "))
    said["predicate"]["logs"][0]["commits"][0] = note.replace(line, line[:-2] + "AA")


def commit_of_other_log(said, case):
    """Put a commit of another log among the earlier ones."""
    log = opened(case.foreign.prove(REQUEST).data)["predicate"]["logs"][0]
    said["predicate"]["logs"][0]["commits"].insert(0, log["checkpoint"])


def waybill_text(said, old, new):
    """Change a waybill."""
    (text,) = said["predicate"]["waybills"]
    assert old in text
    said["predicate"]["waybills"] = [text.replace(old, new, 1)]


def foreign_waybill(case):
    """Give another request's contract."""
    mine = {event.waybill_hash for event in case.made.stories[REQUEST]}
    return [next(c.to_json().decode() for digest, c in case.made.contracts.items() if digest not in mine)]


def with_answer(said):
    """Let the answer's text go along."""
    response = json.loads(said["predicate"]["receipt"]) | {"output": {"text": "secret"}}
    said["predicate"]["receipt"] = json.dumps(response)


def witness_of(said, *, signature=False, text=False, proof=False):
    """Change a witness's note or the proof behind it."""
    (item,) = said["predicate"]["logs"][0]["witnesses"]
    if signature:
        line = item["note"].rstrip("\n").split("\n")[-1]
        name, _, data = line.rpartition(" ")
        changed = bytearray(base64.b64decode(data))
        changed[-1] ^= 1
        item["note"] = item["note"].replace(line, f"{name} {base64.b64encode(changed).decode()}")
    if text:
        item["note"] = item["note"].replace("\nnext ", "\nnext 9", 1)
    if proof:
        item["proof"] = item["proof"][1:]


def witness_elsewhere(said, case):
    """Take a witness's note of another log."""
    (item,) = said["predicate"]["logs"][0]["witnesses"]
    item["note"] = read_head(case.foreign.files, LogPartition(*case.foreign.log)).noted.note.decode()


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampering_is_found_though_the_envelope_is_signed_anew(case, name):
    """Even whoever holds the site's key and changes a pack in this way is found out, and the finding names the sort."""
    kind, change = TAMPERINGS[name]
    said = copy.deepcopy(case.statement)
    change(said, case)
    assert json.dumps(said) != json.dumps(case.statement)
    report = case.check(closed(said, case.ring))
    assert not report.ok
    assert report.first.kind == kind, report.first
    assert report.to_text().startswith("NOT OK")
    assert json.loads(report.to_json())["ok"] is False


def changed(pack, **changes):
    """Change the envelope."""
    return json.dumps(json.loads(pack) | changes).encode()


def reworded(case, old, new):
    """Change a statement's text, and sign it."""
    text = base64.b64decode(json.loads(case.pack)["payload"])
    assert old in text
    return closed(text.replace(old, new, 1), case.ring)


ENVELOPES = {
    "not signed": ("unsigned", lambda c: changed(c.pack, signatures=[])),
    "signed by a strange key": ("signature", lambda c: closed(c.statement, c.strange.ring)),
    "signed by a key that was in force before": ("signature", lambda c: signed_by_the_old_key(c)),
    "another signature": ("signature", lambda c: other_signature(c, "A" * 86 + "==")),
    "a signature that is no base64": ("form", lambda c: other_signature(c, "?")),
    "a signature of another length": ("signature", lambda c: other_signature(c, "AAAA")),
    "a payload of another pack": (
        "signature",
        lambda c: changed(c.pack, payload=json.loads(c.made.prove(OTHER).data)["payload"]),
    ),
    "a payload with one character changed": ("signature", lambda c: one_character(c)),
    "another payload type": ("type", lambda c: changed(c.pack, payloadType="application/json")),
    "a member more": ("form", lambda c: changed(c.pack, more=1)),
    "a member less": ("form", lambda c: json.dumps({"payload": "", "payloadType": PAYLOAD_TYPE}).encode()),
    "a payload that is a list": ("form", lambda c: changed(c.pack, payload=[])),
    "signatures that are an object": ("form", lambda c: changed(c.pack, signatures={})),
    "something behind it": ("form", lambda c: c.pack + b"{}"),
    "two packs": ("form", lambda c: c.pack + c.pack),
    "cut off": ("form", lambda c: c.pack[:-10]),
    "nothing": ("form", lambda c: b""),
    "not UTF-8": ("form", lambda c: c.pack.replace(b"payloadType", b"payloadTyp\xff", 1)),
    "UTF-16": ("form", lambda c: c.pack.decode().encode("utf-16")),
    "a byte order mark": ("form", lambda c: b"\xef\xbb\xbf" + c.pack),
    "a name twice": ("form", lambda c: c.pack.replace(b'{"payload"', b'{"payloadType":"x","payload"', 1)),
    "a name twice, deep inside": ("form", lambda c: reworded(c, b'"ended":true', b'"ended":false,"ended":true')),
    "a number with a fraction": ("form", lambda c: reworded(c, b'"number":', b'"number":0.5,"numbe":')),
    "a number with an exponent": ("form", lambda c: reworded(c, b'"number":', b'"number":1e3,"numbe":')),
    "a huge number": ("form", lambda c: reworded(c, b'"number":', b'"number":' + b"9" * 5000 + b',"numbe":')),
    "not a number": ("form", lambda c: reworded(c, b'"number":', b'"number":NaN,"numbe":')),
    "half a character": ("form", lambda c: reworded(c, b'"requestId":"req', b'"requestId":"\\ud800req')),
    "a deep list": ("form", lambda c: b"[" * 200_000),
    "a deep list inside": ("form", lambda c: closed(b"[" * 100_000 + b"]" * 100_000, c.ring)),
    "a list": ("form", lambda c: b"[]"),
    "null": ("form", lambda c: b"null"),
}  # fmt: skip


def signed_by_the_old_key(case):
    """Sign with the key that signed before the change."""
    old = case.ring.by_key(case.ring.vkeys[0])

    class Old:
        def newest(self):
            return old

    return closed(case.statement, Old())


def other_signature(case, text):
    """Put another text in the signature's place."""
    (signature,) = json.loads(case.pack)["signatures"]
    return changed(case.pack, signatures=[signature | {"sig": text}])


def one_character(case):
    """Change one character of the payload."""
    payload = json.loads(case.pack)["payload"]
    at = len(payload) // 2
    return changed(case.pack, payload=payload[:at] + ("A" if payload[at] != "A" else "B") + payload[at + 1 :])


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_changed_envelope_is_found(case, name):
    """A change around the statement, by somebody without the key or in a form with two readings, is found and named."""
    kind, change = ENVELOPES[name]
    report = case.check(change(case))
    assert not report.ok
    assert report.first.kind == kind, report.first


def test_the_key_in_force_is_needed_and_no_other_will_do(case, tmp_path):
    """With no key at all, with another site's, or with a witness's in its place, nothing is believed."""
    assert verify_pack(case.pack, []).first.kind == "untrusted"
    assert verify_pack(case.pack, case.strange.ring.vkeys).first.kind == "untrusted"
    assert (
        verify_pack(
            case.pack, case.ring.vkeys, [Witness.create(case.made.files.root.parent / "w2", "other").vkey]
        ).first.kind
        == "witness"
    )
    with pytest.raises(NoteError, match="not the key of a log"):
        verify_pack(case.pack, [case.witness.vkey])
    with pytest.raises(NoteError, match="not the key of a witness"):
        verify_pack(case.pack, case.ring.vkeys, case.ring.vkeys)


def test_an_unsigned_pack_proves_its_rows_and_nothing_else(case):
    """Without a signature, which has to be allowed, a receipt is refused: nothing would hold it."""
    said = copy.deepcopy(case.statement)
    assert case.check(closed(said, None)).first.kind == "unsigned"
    assert case.check(closed(said, None), unsigned=True).first.kind == "receipt"
    del said["predicate"]["receipt"]
    assert case.check(closed(said, None), unsigned=True).ok
    row_of(said, 2, stage="nobody")
    assert case.check(closed(said, None), unsigned=True).first.kind == "inclusion"


def test_rows_cut_off_at_the_end_are_told_as_a_story_without_its_end(case):
    """The last rows can be left out of an unsigned pack; the report then says that the story has not ended."""
    said = copy.deepcopy(case.statement)
    del said["predicate"]["receipt"]
    without(said, len(said["subject"]) - 1)
    report = case.check(closed(said, None), unsigned=True)
    assert report.ok
    assert (report.stories[0].ended, "NOT ENDED" in report.to_text()) == (False, True)


def meaning(data: bytes):
    """Give what a file means to a JSON reader, or the file itself if it means nothing."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return data


KEPT = HealthCheck.function_scoped_fixture


@settings(suppress_health_check=[KEPT], deadline=None)
@given(data=st.data())
def test_no_changed_byte_of_a_signed_pack_goes_unnoticed(case, data):
    """One byte changed, put in or taken out is found, or leaves the JSON value as it is; nothing crashes."""
    at = data.draw(st.integers(0, len(case.pack) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    how = data.draw(st.sampled_from(("change", "insert", "remove")))
    rest = case.pack[at + (how != "insert") :]
    mutated = case.pack[:at] + (b"" if how == "remove" else byte) + rest
    report = case.check(mutated)
    assert report.ok is (meaning(mutated) == meaning(case.pack)), report.first


@settings(suppress_health_check=[KEPT], deadline=None)
@given(data=st.data())
def test_no_changed_byte_of_the_statement_goes_unnoticed_even_unsigned(case, data):
    """What the log and the witness hold needs no signature: one byte changed is found, or changes no value."""
    said = copy.deepcopy(case.statement)
    del said["predicate"]["receipt"]
    text = json.dumps(said, separators=(",", ":")).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    byte = bytes([data.draw(st.integers(0x20, 0x7E) | st.integers(0, 255))])
    mutated = text[:at] + byte + text[at + 1 :]
    report = case.check(closed(mutated, None), unsigned=True)
    assert report.ok is (meaning(mutated) == said), report.first


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Give the path to each part of a JSON value."""
    yield path
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*path, name))


@settings(suppress_health_check=[KEPT], deadline=None)
@given(data=st.data(), value=JSON)
def test_any_part_replaced_by_anything_is_found_and_nothing_crashes(case, data, value):
    """Whoever holds the key and puts any JSON value in any place of the statement gets a finding, never a traceback."""
    said = copy.deepcopy(case.statement)
    path = data.draw(st.sampled_from([path for path in places(said) if path]))
    whole = said
    for name in path[:-1]:
        whole = whole[name]
    before = whole[path[-1]]
    whole[path[-1]] = value
    report = case.check(closed(json.dumps(said).encode(), case.ring))
    same = value == before and type(value) is type(before)
    shorter = path == ("predicate", "waybills") and value == []
    assert report.ok is (same or shorter), report.first


@settings(deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[]}')
def test_anything_that_is_no_pack_is_named_and_nothing_crashes(data):
    """Any file at all gets a report."""
    assert verify_pack(data, [], unsigned=True).ok is False


def test_the_sample_is_as_the_tests_need_it(case):
    """The pack has a change of keys, a witness behind the newest commit, and rows that lie between those of others."""
    log = case.statement["predicate"]["logs"][0]
    assert (len(log["commits"]), len(log["witnesses"]), len(log["witnesses"][0]["proof"]) > 1) == (1, 1, True)
    numbers = [item["number"] for item in case.statement["predicate"]["rows"]]
    assert len(numbers) > 4
    assert numbers != list(range(numbers[0], numbers[0] + len(numbers)))
