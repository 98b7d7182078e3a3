"""A store in a bucket is checked where it lies, and what a dead writer left there is no sign of a change."""

from __future__ import annotations

import json
import pickle
import tempfile
import time

import pytest
from evidence_samples import stories
from store_life import LOG, NAME, rows

from evidence.files.places import BucketAccess
from evidence.files.s3 import S3Files
from evidence.log.keys import KeyRing
from evidence.schema import EVENTS_SCHEMA
from evidence.store.site import EvidenceStore
from evidence.verify import verify
from evidence.verify.source import PlaceStore
from waybill.cli.places import BucketPlace
from waybill.cli.program import run

EVENTS = list(stories(60))
FIRST = 100
"""Rows of the first commit that adds some."""


@pytest.fixture
def ring(tmp_path):
    """Give a site's keys."""
    return KeyRing.create(tmp_path / "keys", "local")


@pytest.fixture
def files(bucket):
    """Give a bucket's files."""
    return S3Files(bucket.url, endpoint=bucket.endpoint)


def append(files, ring, events, first=0):
    """Store some events in one commit."""
    with EvidenceStore(files, "local", ring).open(*LOG) as writer:
        writer.append(rows(events, first=first), end=first + len(events) - 1)


def checked(bucket, ring, **more):
    """Check a bucket's store."""
    place = BucketPlace(bucket.url, BucketAccess(endpoint=bucket.endpoint))
    return verify(pickle.loads(pickle.dumps(place)), list(ring.vkeys), jobs=1, **more)  # noqa: S301 - as to a worker


def test_a_bucket_is_checked_and_nothing_of_it_is_kept(bucket, files, ring, tmp_path, monkeypatch, capsys):
    """`verify` of a bucket derives all rows, and makes no file on this machine."""
    append(files, ring, EVENTS)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    capsys.readouterr()
    command = ["verify", bucket.url, "--key", ring.vkeys[0], "--json", "--home", str(tmp_path / "home")]
    assert run(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == len(EVENTS)
    assert report["store"] == bucket.url
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("folder", "act", "kind"),
    [
        ("events/", "change", "file-changed"),
        ("events/", "remove", "file-missing"),
        (f"logs/{NAME}/tile/", "change", "tile"),
        (f"logs/{NAME}/tile/", "remove", "tile-missing"),
        (f"logs/{NAME}/commits/", "change", "signature"),
    ],
)
def test_what_is_changed_in_a_bucket_is_found(bucket, files, ring, folder, act, kind):
    """A changed or removed object is the first finding, as in a folder."""
    append(files, ring, EVENTS)
    *_, entry = files.list(folder)
    if act == "remove":
        files.delete(entry.path)
    else:
        data = bytearray(files.read(entry.path))
        place = -5 if kind == "signature" else len(data) // 2
        data[place] = ord("B" if data[place] == ord("A") else "A")  # a signature's text stays base64
        files.replace(entry.path, bytes(data))
    report = checked(bucket, ring, pause_s=0)
    assert kind in {finding.kind for finding in report.findings}, report.to_text()


def test_a_large_file_is_read_in_parts(bucket, files, ring, monkeypatch):
    """A file that is too large to be held in memory is hashed and decoded in parts, and a change in it is found."""
    append(files, ring, EVENTS)
    monkeypatch.setattr("evidence.verify.source._IN_MEMORY", 1000)
    assert checked(bucket, ring).ok
    (entry,) = files.list("events/")
    data = bytearray(files.read(entry.path))
    data[len(data) // 2] ^= 1
    files.replace(entry.path, bytes(data))
    assert checked(bucket, ring).findings[0].kind == "file-changed"


@pytest.mark.parametrize("size", [20_000, 200_000])
def test_an_object_that_is_too_large_is_not_taken_into_memory(bucket, files, ring, monkeypatch, size):
    """What lies in a tile's place may be of any size: it is a finding, whether it was asked for ahead or not."""
    append(files, ring, EVENTS)
    taken = []
    whole = PlaceStore._whole
    monkeypatch.setattr("evidence.verify.source.MOST_AT_ONCE", 100_000)
    monkeypatch.setattr(PlaceStore, "_whole", lambda *given: taken.append(whole(*given)) or taken[-1])
    *_, entry = files.list(f"logs/{NAME}/tile/0/")
    files.replace(entry.path, bytes(size))
    report = checked(bucket, ring, pause_s=0)
    assert (report.first.kind, report.first.where) == ("tile", entry.path)
    assert max(len(data) for data in taken if data) < 100_000


def test_a_bucket_that_does_not_answer_is_no_proof(bucket, ring):
    """A bucket that is not there is a finding, and never taken for a store in order."""
    place = BucketPlace("s3://no-such-bucket/evidence", BucketAccess(endpoint=bucket.endpoint))
    report = verify(place, list(ring.vkeys), jobs=1)
    assert not report.ok
    assert report.first.kind == "unreadable"


class DyingFiles(S3Files):
    """A bucket's files, whose process ends before the first commit that adds rows."""

    def replace_many(self, items):
        """Write the tiles, and be gone."""
        super().replace_many(items)
        raise KeyboardInterrupt


@pytest.mark.parametrize("changed", [False, True], ids=["as-left", "committed-tile-changed"])
def test_tiles_that_a_dead_writer_left_in_a_bucket_are_no_sign_of_a_change(bucket, files, ring, changed):
    """Other rows come in the place of a dead writer's: its tile is told and no fault; a commit's tile stays one."""
    story = [event for event in EVENTS if event.intake_id == EVENTS[0].intake_id]
    others = [event for event in EVENTS if event.intake_id != EVENTS[0].intake_id]
    with pytest.raises(KeyboardInterrupt):
        append(DyingFiles(bucket.url, endpoint=bucket.endpoint), ring, story)
    time.sleep(1.1)  # a bucket tells whole seconds, and the next writer removes only files that are surely older
    left = f"logs/{NAME}/tile/0/000.p/{len(story)}"
    assert len(files.read(left)) == 32 * len(story)
    with EvidenceStore(files, "local", ring).open(*LOG) as writer:
        writer.append(EVENTS_SCHEMA.empty_table(), end=len(story) - 1, lost=((0, len(story) - 1),))
        first = len(story) + FIRST
        writer.append(rows(others[:FIRST], first=len(story)), end=first - 1)
        early = f"logs/{NAME}/tile/0/000.p/{FIRST}"
        kept = files.read(early)
        writer.append(rows(others[FIRST:], first=first), end=len(EVENTS) - 1)
    if changed:
        files.create(early, bytes(32) + kept[32:])  # as a removal that was lost would leave it, but for one hash
    report = checked(bucket, ring, pause_s=0, accept_loss=True)
    assert [finding.where for finding in report.findings] == ([early] if changed else [])
    assert any("1 partial tiles are of no commit" in note for note in report.notes)
