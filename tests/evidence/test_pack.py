"""Packs as they are built: from small files and compacted ones, over changes of keys, with rows that are gone."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence_samples import NOON
from packs_made import LOG, NAME, TODAY, Proving, crossing, opened

from evidence.errors import StoreError
from evidence.log.witness import Witness
from evidence.pack import build, key_changes
from evidence.pack_rows import Place
from evidence.rows import canonical_rows
from evidence.store.compaction import compact, delete_removed, plans
from evidence.store.expiry import Expiry, Plan, Rule
from evidence.store.history import read_commit
from evidence.store.layout import LogPartition
from evidence.store.live import read_live
from evidence.store.state import read_head, tile_reader
from evidence.verify.pack import verify_pack

CROSSED = next(number for number in range(100) if crossing(number))
REQUEST = f"req-{CROSSED:08d}"


@pytest.fixture(scope="module")
def forty(tmp_path_factory) -> Proving:
    """Forty requests in many small files."""
    proving = Proving.begin(tmp_path_factory.mktemp("forty"))
    proving.tell(range(40))
    return proving


@pytest.fixture
def made(forty, tmp_path) -> Proving:
    """A copy of them for one test."""
    return forty.copy(tmp_path)


def checked(pack, made, **options):
    """Check a pack with the site's first key; it has to be right."""
    report = verify_pack(pack.data, [made.ring.vkeys[0]], **options)
    assert report.ok, report.first
    return report


def test_every_request_of_a_store_is_proved(made):
    """Each request's pack holds its rows, all of them, and is right."""
    for request_id, events in list(made.stories.items())[:12]:
        report = checked(made.prove(request_id), made)
        assert (report.request_id, report.rows) == (request_id, len(events))
        assert [(story.whole, story.ended) for story in report.stories] == [(True, True)]
        assert report.receipt
        assert made.ring.vkeys[0].startswith(f"{report.signed_by}+")


def test_the_rows_are_those_of_the_files(made):
    """The text of each row is the canonical form of the row in the file, and its subject's digest is its own."""
    statement = opened(made.prove(REQUEST).data)
    every = {}
    for added in read_live(made.files, NAME).files.values():
        for row in canonical_rows(pq.read_table(made.files.url(added.path), partitioning=None)):
            every[json.loads(row)["eventId"]] = row.decode()
    rows = [item["row"] for item in statement["predicate"]["rows"]]
    assert rows == [every[event.event_id] for event in made.stories[REQUEST]]
    assert statement["subject"] == [
        {"name": json.loads(row)["eventId"], "digest": {"sha256": hashlib.sha256(row.encode()).hexdigest()}}
        for row in rows
    ]


@pytest.mark.parametrize("compacted", [False, True])
def test_an_index_and_a_search_find_the_same(made, compacted):
    """With the places of the rows only some files are read, and the pack is the same."""
    if compacted:
        made.compact()
        made.tell(range(40, 60))
    found = made.prove(REQUEST)
    said = [json.loads(item["row"]) for item in opened(found.data)["predicate"]["rows"]]
    places = [
        Place(datetime.fromisoformat(row["occurredAtUtc"]).date(), row["logPartition"], row["logOffset"])
        for row in said
    ]
    assert made.prove(REQUEST, places=places).data == found.data


def test_an_index_that_knows_more_than_the_files_is_an_error(made):
    """A row that an index knows of and no file holds is not left out in silence."""
    with pytest.raises(StoreError, match=r"2 rows of .* are in an index, and 0 in files"):
        made.prove(REQUEST, places=[Place(NOON.date(), 0, 10**9), Place(NOON.date(), 0, 10**9 + 1)])


def test_compaction_changes_nothing_that_is_proved(made):
    """Rows in large files, sorted otherwise, and in small ones behind them have the numbers that they always had."""
    before = opened(made.prove(REQUEST).data)["predicate"]["rows"]
    assert len(read_live(made.files, NAME).files) > 10
    made.compact()
    assert len(read_live(made.files, NAME).files) == 1
    made.tell(range(40, 60))
    after = opened(made.prove(REQUEST).data)["predicate"]["rows"]
    assert [(item["number"], item["row"]) for item in after] == [(item["number"], item["row"]) for item in before]
    for request_id in list(made.stories)[:12]:
        checked(made.prove(request_id), made)


def test_a_story_over_large_files_and_small_ones(tmp_path):
    """A story that begins in a compacted file and ends in a small one is whole."""
    made = Proving.begin(tmp_path)
    made.tell([CROSSED], left_out=lambda event: event.sequence > 3)
    made.compact()
    rest = made.tell([CROSSED], left_out=lambda event: event.sequence <= 3)
    report = checked(made.prove(*rest), made)
    assert report.stories[0].whole


def test_any_key_of_the_chain_checks_a_pack(tmp_path):
    """After three changes of keys, who holds any of them can check a pack; who holds another cannot."""
    made = Proving.begin(tmp_path)
    for part in range(3):
        made.tell(range(part * 20, part * 20 + 20))
        made.ring.rotate()
    made.tell(range(60, 80))
    assert len(made.ring.vkeys) == 4
    pack = made.prove(REQUEST)
    assert len(opened(pack.data)["predicate"]["logs"][0]["commits"]) == 3
    for key in made.ring.vkeys:
        assert verify_pack(pack.data, [key]).ok, key
    other = Proving.begin(tmp_path / "other").ring.vkeys[0]
    assert verify_pack(pack.data, [other]).first.kind == "untrusted"


def test_a_pack_from_the_very_commit_that_names_a_key(tmp_path):
    """Where the newest commit is the change of keys, the new key signs the pack, and both keys check it."""
    made = Proving.begin(tmp_path)
    made.tell(range(20))
    made.ring.rotate()
    made.store.open(*LOG).close()
    assert read_head(made.files, LogPartition(*LOG)).commit.key == made.ring.vkeys[1]
    pack = made.prove(REQUEST)
    reports = [verify_pack(pack.data, [key]) for key in made.ring.vkeys]
    assert [report.ok for report in reports] == [True, True]
    assert made.ring.vkeys[1].startswith(f"{reports[0].signed_by}+")


def test_a_key_that_no_log_has_named_yet_does_not_sign(made):
    """Between the making of a key and the commit that names it, packs are signed with the key in force."""
    made.ring.rotate()
    assert made.ring.vkeys[0].startswith(f"{checked(made.prove(REQUEST), made).signed_by}+")


def test_changes_of_keys_are_found_without_reading_every_commit(tmp_path):
    """Three changes among hundreds of commits, packed and loose, cost few reads."""
    made = Proving.begin(tmp_path)
    for part in range(4):
        made.tell(range(part * 20, part * 20 + 20), rows=2)
        made.ring.rotate()
    newest = read_head(made.files, LogPartition(*LOG)).commit.number
    read = []

    class Counting:
        def __getattr__(self, name):
            return getattr(made.files, name)

        def read(self, path):
            read.append(path)
            return made.files.read(path)

    notes = list(key_changes(Counting(), NAME, 0, newest))
    expected = [n for n in range(newest) if read_commit(made.files, NAME, n).commit.key]
    assert [read_commit(made.files, NAME, n).note for n in expected] == notes
    assert newest > 200
    assert len(read) < 60


def test_without_keys_the_envelope_is_unsigned_and_holds_no_receipt(made):
    """Whoever has the store alone makes a pack whose rows are proved all the same; it has to be asked for."""
    pack = made.prove(REQUEST, signers=None)
    assert "receipt" not in opened(pack.data)["predicate"]
    key = made.ring.vkeys[0]
    assert verify_pack(pack.data, [key]).first.kind == "unsigned"
    report = verify_pack(pack.data, [key], unsigned=True)
    assert (report.ok, report.rows, report.signed_by) == (True, len(made.stories[REQUEST]), "")


def test_waybills_are_those_that_the_rows_name(made):
    """The contracts in a pack are the request's own; one that is not to be had is named."""
    named = {event.waybill_hash for event in made.stories[REQUEST]} - {None}
    pack = made.prove(REQUEST)
    assert set(pack.waybills) == named != set()
    assert pack.wanted == ()
    assert checked(pack, made).waybills == len(named)
    without = build(made.files, REQUEST, signers=made.ring)
    assert set(without.wanted) == named
    assert [note for note in checked(without, made).notes if all(digest in note for digest in named)]


def test_a_request_that_evidence_does_not_know_has_no_pack(made):
    """There is no pack without rows."""
    assert build(made.files, "req-unknown", signers=made.ring) is None


def test_a_story_that_has_not_ended_is_proved_and_said_to_be_open(tmp_path):
    """The pack of a request that is under way is right, and says that there is no end."""
    made = Proving.begin(tmp_path)
    made.tell([CROSSED], left_out=lambda event: event.sequence > 3)
    report = checked(made.prove(REQUEST), made)
    assert (report.stories[0].ended, report.stories[0].whole) == (False, False)
    assert "NOT ENDED" in report.to_text()


@pytest.mark.parametrize("later_rows", [False, True])
def test_rows_that_were_expired_are_named_with_their_numbers(tmp_path, later_rows):
    """Where retention removed the day on which a story began, the rest is proved and the pack says what is gone."""
    made = Proving.begin(tmp_path)
    late = datetime(2026, 3, 1, 23, 59, 59, 900_000, tzinfo=UTC)
    made.tell([CROSSED, CROSSED + 1], begin=late - timedelta(milliseconds=37 * CROSSED))
    gone = [event for event in made.stories[REQUEST] if event.occurred_at_utc.day == 1]
    assert 0 < len(gone) < len(made.stories[REQUEST])
    store = made.store
    later = (late + timedelta(days=29, hours=12)).timestamp()
    with store.open(*LOG) as writer:
        assert Expiry(store.files, lambda: Plan((Rule("all", 30, 1),)), now=lambda: later)(writer)
    if later_rows:
        made.tell([CROSSED + 50])
    pack = made.prove(REQUEST)
    (log,) = opened(pack.data)["predicate"]["logs"]
    saying = [note for note in (log["checkpoint"], *log["commits"]) if "\nexpire " in note]
    assert [log["checkpoint"] in saying, bool(log["commits"])] == [not later_rows, later_rows]
    report = checked(pack, made)
    assert report.rows == len(made.stories[REQUEST]) - len(gone)
    assert report.stories[0].ended
    (note,) = [note for note in report.notes if "cannot be shown" in note]
    assert f"event 0 to {len(gone) - 1}" in note or "event 0 of" in note
    assert "under all" in note


def test_rows_before_the_log_begins_are_named(tmp_path):
    """A story that began before the first offset that the log covers is proved from there on."""
    made = Proving.begin(tmp_path)
    with made.store.open(*LOG, beginning=10):
        made.offset = 10
    made.tell([CROSSED], left_out=lambda event: event.sequence < 2)
    report = checked(made.prove(REQUEST), made)
    assert ["coverage begins with offset 10" in note for note in report.notes if "cannot" in note] == [True]


def test_a_gap_that_nothing_explains_is_found(tmp_path):
    """Where a step of the story never reached the log, its pack is not right."""
    made = Proving.begin(tmp_path)
    made.tell([CROSSED], left_out=lambda event: event.sequence == 2)
    report = verify_pack(made.prove(REQUEST).data, made.ring.vkeys)
    assert (report.first.kind, "event 2" in report.first.what) == ("story", True)


def test_a_witness_vouches_for_the_rows_that_it_saw(made, tmp_path):
    """A cosignature of an earlier commit counts for the rows before it, by a proof that the log goes on from there."""
    witness = Witness.create(tmp_path / "witness", "auditor")
    head = read_head(made.files, LogPartition(*LOG))
    note = witness.cosign(head.noted.note, made.ring.verifiers, tile_reader(made.files, NAME), at=1_770_000_000)
    made.files.create(f"logs/{NAME}/witness/auditor/{head.commit.number:012d}", note)
    (late,) = made.tell([40])
    seen = checked(made.prove(REQUEST), made, witnesses=[witness.vkey])
    assert any("auditor cosigned commit" in note for note in seen.notes)
    report = verify_pack(made.prove(late).data, made.ring.vkeys, [witness.vkey])
    assert (report.first.kind, f"cosigned {head.commit.size} rows" in report.first.what) == ("witness", True)
    assert any("for want of" in note for note in checked(made.prove(REQUEST), made).notes)


def test_two_arrivals_of_one_request_are_two_stories(made):
    """What was sent twice under one id is in one pack, with each arrival's own story."""
    made.tell([CROSSED], begin=NOON + timedelta(hours=1))
    report = checked(made.prove(REQUEST, documents=made.documents(REQUEST, receipt=False)), made)
    assert [story.whole for story in report.stories] == [True, True]


def test_a_store_that_is_written_meanwhile_is_proved(made):
    """While commits come, tiles grow and small files are merged and deleted, each pack that is made is right."""
    stop = threading.Event()
    failed = []

    def write():
        try:
            number = 100
            while not stop.is_set():
                made.tell([number, number + 1], rows=2)
                with made.store.open(*LOG) as writer:
                    for plan in list(plans(writer.live, today=TODAY.date(), many=2)):
                        compact(writer, made.files, plan)
                    delete_removed(writer, made.files, now=time.time() + 60, grace_s=0)
                number += 2
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=write)
    thread.start()
    sizes = set()
    try:
        for _ in range(25):
            sizes.add(checked(made.prove(REQUEST), made).logs[0].rpartition(" of ")[0])
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert len(sizes) > 1


def test_a_damaged_file_is_an_error_that_names_it(made):
    """A file of evidence that cannot be read ends the proof with its name."""
    added = next(iter(read_live(made.files, NAME).files.values()))
    made.files.replace(added.path, b"PAR1 nothing PAR1")
    with pytest.raises(StoreError, match="cannot be read"):
        made.prove(REQUEST)


def test_a_row_that_the_log_did_not_hash_is_an_error(made):
    """A file that was exchanged for another one with changed rows is noticed when a row of it is proved."""
    for added in read_live(made.files, NAME).files.values():
        table = pq.read_table(made.files.url(added.path), partitioning=None)
        if REQUEST in table.column("request_id").to_pylist():
            break
    place = table.schema.get_field_index("span_id")
    changed = pa.array(["0" * 16] * len(table))
    pq.write_table(table.set_column(place, table.schema.field(place), changed), made.files.url(added.path))
    with pytest.raises(StoreError, match="is not what the log hashed"):
        made.prove(REQUEST)


def test_the_check_needs_none_of_the_writers_code(made, tmp_path):
    """Another process checks a pack with nothing of ours but `evidence.verify`."""
    (tmp_path / "pack.json").write_bytes(made.prove(REQUEST).data)
    program = (
        "import sys; from evidence.verify.pack import verify_pack\n"
        f"report = verify_pack(open({str(tmp_path / 'pack.json')!r}, 'rb').read(), [{made.ring.vkeys[0]!r}])\n"
        "loaded = [n for n in sys.modules if n.split('.')[0] in ('pydantic', 'orjson', 'duckdb')]\n"
        "loaded += [n for n in sys.modules if n.startswith('evidence.') and not n.startswith('evidence.verify')]\n"
        "print(report.ok, report.rows, loaded)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == f"True {len(made.stories[REQUEST])} []\n"


def test_the_signature_is_dsse(made):
    """The envelope's signature is Ed25519 over the pre-authentication encoding that DSSE prescribes."""
    envelope = json.loads(made.prove(REQUEST).data)
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    (signature,) = envelope["signatures"]
    made.ring.newest().key.public_key().verify(base64.b64decode(signature["sig"]), signed)
