"""Signed notes, keys and the text of commits, read strictly."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_store import OWN, WITNESS, signed

from evidence.verify.commits import CommitError, parse_commit, parse_pack, ranges
from evidence.verify.notes import NoteError, parse_key, parse_note

GOOD = """waybill/home/5kfQYbtFR5SxUzNyM4kkNg/ai.evidence-0
1250
0E1tGZPzMsE5Ol6hTkRZk1vZTrrGvIs3iC0HHLbrf6E=
commit 17
previous 3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f
time 2026-11-24T18:00:00.000000Z
writer 3 6f1c2a9be07d4410
partitions 4
next 1303
rejected 1201,1204-1207
lost 1290-1299 expired
"""
FILE = "5kfQYbtFR5SxUzNyM4kkNg.ai.evidence-0-00000000000000001200-00000000000000001302-9a0c9a0c9a0c9a0c.parquet"
GOOD += f"add events/site=home/date=2026-11-24/{FILE} 50 18231 {'9a0c' * 16} 1200-1249\n"
"""A commit with most of what one may have."""


def test_a_note_that_another_program_signed() -> None:
    """The example of the Go package that made the form verifies, and a changed text does not."""
    key = parse_key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    note = parse_note(
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
        "\n".encode()
    )
    signature = note.of(key)
    assert signature is not None
    assert key.signed(note.text, signature.body)
    assert not key.signed(note.text.replace(b"problem", b"Problem"), signature.body)


def test_a_cosignature_is_over_its_time_and_the_text() -> None:
    """A witness's line verifies; with another time it does not."""
    key = parse_key(WITNESS.verifier)
    note = parse_note((GOOD + "\n" + OWN.line(GOOD) + WITNESS.line(GOOD, 1_800_000_000)).encode())
    signature = note.of(key)
    assert signature is not None
    assert signature.seconds == 1_800_000_000
    assert key.signed(note.text, signature.body)
    assert not key.signed(note.text, (1).to_bytes(8, "big") + signature.body[8:])


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "waybill/home",
        OWN.verifier + "A",
        OWN.verifier.replace("+", "+0", 1),
        OWN.verifier.replace("waybill", "waybil1"),
        "a b" + OWN.verifier[OWN.verifier.index("+") :],
        f"{OWN.name}+{OWN.key_id.hex()}+{base64.b64encode(OWN.public[:-1]).decode()}",
    ],
)
def test_a_key_that_is_none_is_refused(odd: str) -> None:
    """A wrong key id, name or length is an error."""
    with pytest.raises(NoteError):
        parse_key(odd)


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        b"text\n\nno signature\n",
        signed(GOOD, OWN)[:-1],
        signed(GOOD, OWN) + b"\n",
        signed(GOOD, OWN).replace(b"\n\n", b"\r\n\r\n"),
        signed(GOOD, OWN).replace(b"partitions", b"\xff"),
        signed(GOOD, OWN).replace(b"partitions", b"\x00"),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— na+me AAAAAAAAAAA=\n".encode(),
        "text\n\n— name AAAAAAAAAAB=\n".encode(),
        b"text\n\n-- name AAAAAAAAAAA=\n",
    ],
)
def test_a_note_that_is_none_is_refused(odd: bytes) -> None:
    """Anything but text, a blank line and signature lines is an error."""
    with pytest.raises(NoteError):
        parse_note(odd)


def test_a_good_commit_is_read() -> None:
    """Each line lands in its field."""
    commit = parse_commit(GOOD.encode())
    assert (commit.size, commit.number, commit.next, commit.partitions) == (1250, 17, 1303, 4)
    assert commit.rejected == ((1201, 1201), (1204, 1207))
    assert commit.added[0].leaves == ((1200, 1249),)
    assert commit.origin.folder == "5kfQYbtFR5SxUzNyM4kkNg.ai.evidence-0"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("commit 17", "commit 017"),
        ("commit 17", "commit 17 "),
        ("commit 17", "commit  17"),
        ("commit 17", "commit -1"),
        ("commit 17", "commit \u0661\u0667"),
        ("commit 17\n", ""),
        ("commit 17\n", "commit 17\ncommit 17\n"),
        ("partitions 4\nnext 1303\n", "next 1303\npartitions 4\n"),
        ("previous 3b", "previous 3B"),
        ("previous 3b1f", "previous 3b1"),
        ("previous 3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f3b1f", "previous none"),
        ("18:00:00.000000Z", "18:00:00Z"),
        ("18:00:00.000000Z", "18:00:00.000000+00:00"),
        ("2026-11-24T18", "2026-13-24T18"),
        ("writer 3 6f1c2a9be07d4410", "writer 3"),
        ("writer 3 6f1c2a9be07d4410", "writer 3 a b"),
        ("1201,1204-1207", "1204-1207,1201"),
        ("1201,1204-1207", "1201,1202"),
        ("1201,1204-1207", "1201-1201"),
        ("1201,1204-1207", "1201,"),
        ("1290-1299 expired", "1290-1299 eaten"),
        ("0E1tGZPz", "0E1tGZP"),
        ("rf6E=", "rf6F="),
        ("date=2026-11-24", "date=2026-02-30"),
        ("site=home", "site=away"),
        ("evidence-0-0", "evidence-1-0"),
        ("events/site", "events/../site"),
        ("00001302-9a0c", "00001302-9a0d"),
        ("00000000000000001302", "00000000000000001199"),
        (" 50 18231", " 51 18231"),
        ("1200-1249\n", "1200-1249"),
        ("1200-1249\n", "1200-1249\n\n"),
        ("1200-1249\n", "1200-1249\nfirst 3\n"),
        ("waybill/home", "waybill/home/extra"),
        ("1250\n", "1e3\n"),
        ("next 1303", "next 99999999999999999999"),
    ],
)
def test_an_odd_line_is_an_error(old: str, new: str) -> None:
    """There is one way to write a commit."""
    assert GOOD.count(old)
    with pytest.raises((CommitError, NoteError)):
        parse_commit(GOOD.replace(old, new, 1).encode())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_readers_fail_otherwise(data: bytes) -> None:
    """Arbitrary bytes are an error of ours, or read; nothing else."""
    for read in (lambda: parse_note(data), lambda: list(parse_pack(data)), lambda: parse_key(data.decode("latin-1"))):
        try:
            read()
        except (NoteError, CommitError):
            continue


@settings(deadline=None)
@given(st.text(st.sampled_from("0123456789-,"), max_size=12))
def test_ranges_have_one_form(text: str) -> None:
    """What is read as ranges is written back as the same text."""
    try:
        spans = ranges(text)
    except CommitError:
        return
    assert text == ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)
