"""Signed notes, checkpoints and cosignatures: the forms of C2SP, read strictly."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from merkle_logs import signer

from evidence.errors import ConfigError
from evidence.log.checkpoints import Checkpoint, checkpoint
from evidence.log.notes import WITNESS_KEY, NoteError, NotSignedError, Verifier, open_note, sign

TEXTS = st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), min_size=1).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)


HOME, NEXT, STRANGER = signer(), signer(seed=2), signer("waybill/abroad", seed=3)
WITNESS = signer("witness.example/w1", seed=4, kind=WITNESS_KEY)
TEXT = "waybill/home/id/ai.evidence-0\n3\nMEwVSuXnDSBUzVrt+VfBMdKs4nJbHYZlTLpMNiuBxSY=\ncommit 1\n"
NOTE = HOME.sign(TEXT)


def refused(data, *keys):
    """Whether a note is refused."""
    try:
        open_note(data, [key.verifier for key in keys or (HOME,)])
    except NoteError:
        return True
    return False


def test_the_standard_example_opens():
    """The example of golang.org/x/mod/sumdb/note, whose key and note everybody has."""
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    note = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
        "\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    opened = open_note(note.encode(), [Verifier.from_vkey(vkey)])
    assert opened.text == note.partition("\n\n")[0] + "\n"
    assert [signature.vkey for signature in opened.signatures] == [vkey]
    changed = note.replace("answer", "questi")
    with pytest.raises(NoteError, match=r"signature of PeterNeumann\+c74f20a3 is not valid: the note was changed"):
        open_note(changed.encode(), [Verifier.from_vkey(vkey)])


def test_a_note_is_laid_out_as_the_standard_says():
    """Text, blank line, and `— name base64(key id, signature)`; the key id is the head of a hash over name and key."""
    text, blank, line = NOTE.decode().partition("\n\n")
    assert (text + "\n", blank) == (TEXT, "\n\n")
    dash, name, data = line.removesuffix("\n").split(" ")
    assert (dash, name) == ("\u2014", "waybill/home")
    public = HOME.key.public_key()
    key_id = hashlib.sha256(b"waybill/home\n\x01" + public.public_bytes_raw()).digest()[:4]
    assert base64.b64decode(data)[:4] == key_id
    public.verify(base64.b64decode(data)[4:], TEXT.encode())
    encoded = base64.b64encode(b"\x01" + public.public_bytes_raw()).decode()
    assert HOME.vkey == f"waybill/home+{key_id.hex()}+{encoded}"


@given(text=TEXTS, seeds=st.lists(st.integers(0, 255), min_size=1, max_size=4, unique=True))
def test_a_note_reads_back(text, seeds):
    """Whatever lines are signed, by whatever keys: each of them opens the note and finds its own signature."""
    signers = [signer(seed=seed) for seed in seeds]
    note = sign(text, *signers)
    opened = open_note(note, [one.verifier for one in signers])
    assert opened.text == text
    assert [found.vkey for found in opened.signatures] == [one.vkey for one in signers]
    assert opened.unknown == ()
    for one in signers:
        alone = open_note(note, [one.verifier])
        assert (alone.text, len(alone.unknown)) == (text, len(signers) - 1)
        assert alone.signed_by(one.vkey)
    assert refused(note, STRANGER)


def test_every_changed_byte_is_noticed():
    """Each byte of a note, replaced by any of 255 others, left out or doubled: the note is refused."""
    for at in range(len(NOTE)):
        assert refused(NOTE[:at] + NOTE[at + 1 :])
        assert refused(NOTE[:at] + NOTE[at : at + 1] + NOTE[at:])
        for byte in range(256):
            if byte != NOTE[at]:
                assert refused(NOTE[:at] + bytes([byte]) + NOTE[at + 1 :])


@given(cut=st.integers(0, len(NOTE) - 1), more=st.binary(min_size=1, max_size=80))
def test_a_note_is_refused_in_part_and_with_more(cut, more):
    """A note that was cut anywhere, or has anything in front or behind, is no note of this key."""
    assert refused(NOTE[:cut])
    assert refused(NOTE + more)
    assert refused(more + NOTE)


@given(data=st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_anything_else_is_no_note(data):
    """Whatever bytes come, reading them ends in the one error that says so."""
    assert refused(data)
    assert refused(data + NOTE[NOTE.index(b"\n\n") :])


def test_two_keys_sign_a_change_of_keys():
    """A note of two keys opens with either; with both known, one bad signature spoils it."""
    note = HOME.sign(TEXT, NEXT)
    opened = open_note(note, [HOME.verifier, NEXT.verifier])
    assert opened.signed_by(HOME.vkey)
    assert opened.signed_by(NEXT.vkey)
    assert not opened.signed_by(STRANGER.vkey)
    forged = NOTE + NEXT.line(TEXT.replace("3", "4", 1)).encode()
    assert not refused(forged, HOME)  # nothing is known of the other signature
    assert refused(forged, HOME, NEXT)


def test_who_signed_is_named():
    """A note of strangers says whose it is; a key of the same name with another key id is a stranger too."""
    with pytest.raises(
        NotSignedError, match=rf"by no key that is known, only by waybill/home\+{HOME.verifier.key_id.hex()}"
    ):
        open_note(NOTE, [NEXT.verifier, STRANGER.verifier])


@pytest.mark.parametrize("text", ["", "\n", "no line end", "a\tb\n", "a\r\n", "a\x00\n", "\x1b[2J\n"])
def test_what_cannot_be_signed(text):
    """An empty text, one without its line end and control characters cannot be a note's."""
    with pytest.raises(NoteError, match="not a note's text"):
        HOME.sign(text)


def test_who_cannot_sign():
    """Nobody, the same key twice, and a witness's key sign no note."""
    with pytest.raises(NoteError, match="at least one key, and by each once"):
        sign(TEXT)
    with pytest.raises(NoteError, match="at least one key, and by each once"):
        HOME.sign(TEXT, HOME)
    with pytest.raises(NoteError, match="witness's key, which only cosigns"):
        WITNESS.sign(TEXT)


def test_a_signature_stands_once():
    """The same line twice, and more than a hundred signatures, are refused."""
    assert refused(NOTE + HOME.line(TEXT).encode())
    many = "".join(signer(seed=seed).line(TEXT) for seed in range(2, 102)).encode()
    assert refused(NOTE + many)
    assert not refused(NOTE + b"".join(many.splitlines(keepends=True)[:99]))


def test_one_text_has_one_base64():
    """A last character whose spare bits are set decodes to the same signature, and is refused nevertheless."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    head, last, tail = NOTE[:-3].decode(), NOTE[-3:-2].decode(), NOTE[-2:].decode()
    other = alphabet[alphabet.index(last) + 1]
    assert base64.b64decode((head + other).split(" ")[-1] + "=") == base64.b64decode((head + last).split(" ")[-1] + "=")
    assert refused((head + other + tail).encode())


@pytest.mark.parametrize("key", [HOME, NEXT, STRANGER, WITNESS])
def test_a_verifier_key_reads_back(key):
    """A key's text gives the key, of either kind."""
    assert Verifier.from_vkey(key.vkey) == key.verifier
    assert Verifier.from_vkey(key.vkey).vkey == key.vkey


def test_a_changed_verifier_key_is_refused():
    """A verifier key with any one character changed is another name or no key; never the same name with another key."""
    vkey = HOME.vkey
    for at in range(vkey.index("+"), len(vkey)):
        for char in "A0f+/=- é":
            if char != vkey[at]:
                with pytest.raises(ConfigError):
                    Verifier.from_vkey(vkey[:at] + char + vkey[at + 1 :])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a",
        "a+b",
        "a+b+c",
        "a b+00000000+AAAA",
        "+00000000+AAAA",
        f"{HOME.vkey}\n",
        f" {HOME.vkey}",
        HOME.vkey.upper(),
    ],
)
def test_what_is_no_verifier_key(vkey):
    """Anything else is an error that shows what was given."""
    with pytest.raises(ConfigError):
        Verifier.from_vkey(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\x00", "x" * 201])
def test_what_cannot_name_a_key(name):
    """A key's name has no blanks of any kind and no plus sign."""
    with pytest.raises(ConfigError, match="cannot be the name of a key"):
        signer(name)


def test_a_private_key_does_not_show():
    """What a signer looks like in a log or an error says nothing of its private half."""
    secret = HOME.key.private_bytes_raw()
    assert "key=" not in repr(HOME).replace("key=" + repr(HOME.verifier.key), "")
    assert repr(secret)[2:-1] not in repr(HOME)
    assert secret.hex() not in repr(HOME)


def test_a_cosignature_is_laid_out_as_the_standard_says():
    """`cosignature/v1`, the moment and the text are signed; key id, moment and signature stand in the line."""
    note = WITNESS.cosign(NOTE, at=1_795_000_000)
    line = note.removeprefix(NOTE).decode()
    data = base64.b64decode(line.split(" ")[2])
    public = WITNESS.key.public_key()
    assert line.startswith("\u2014 witness.example/w1 ")
    assert data[:4] == hashlib.sha256(b"witness.example/w1\n\x04" + public.public_bytes_raw()).digest()[:4]
    assert int.from_bytes(data[4:12], "big") == 1_795_000_000
    public.verify(data[12:], f"cosignature/v1\ntime 1795000000\n{TEXT}".encode())
    opened = open_note(note, [HOME.verifier, WITNESS.verifier])
    assert [(found.vkey, found.time) for found in opened.signatures] == [
        (HOME.vkey, None),
        (WITNESS.vkey, 1_795_000_000),
    ]


def test_every_changed_byte_of_a_cosigned_note_is_noticed():
    """With only the witness's key, each changed byte of what it signed and of its own line is noticed."""
    note = WITNESS.cosign(NOTE, at=1_795_000_000)
    own = note.index("\u2014 witness".encode())
    for at in [*range(len(TEXT) + 1), *range(own, len(note))]:
        for flip in (1, 0x20, 0x80):
            assert refused(note[:at] + bytes([note[at] ^ flip]) + note[at + 1 :], WITNESS)


def test_a_key_signs_as_its_kind():
    """A log's signature with a witness's key id, or the other way round, is not taken, whatever the key is."""
    both = signer("waybill/home", seed=1, kind=WITNESS_KEY)
    assert both.verifier.key == HOME.verifier.key
    assert both.verifier.key_id != HOME.verifier.key_id
    for wrong, kind in ((HOME.line(TEXT), both), (both.cosign(NOTE, at=1).removeprefix(NOTE).decode(), HOME)):
        data = base64.b64decode(wrong.split(" ")[2])
        line = f"\u2014 waybill/home {base64.b64encode(kind.verifier.key_id + data[4:]).decode()}\n"
        assert refused(f"{TEXT}\n{line}".encode(), kind)


def test_who_cannot_cosign():
    """A log's key, a witness that has signed already, and a moment before 1970 are refused."""
    note = WITNESS.cosign(NOTE, at=0)
    for key, data, at in ((HOME, NOTE, 1), (WITNESS, note, 2), (WITNESS, NOTE, -1), (WITNESS, NOTE, 1 << 63)):
        with pytest.raises(NoteError):
            key.cosign(data, at=at)


def test_a_checkpoint_is_the_first_three_lines():
    """Origin, size and root are read; what follows is the log's own."""
    root = base64.b64decode("MEwVSuXnDSBUzVrt+VfBMdKs4nJbHYZlTLpMNiuBxSY=")
    assert checkpoint(TEXT) == Checkpoint("waybill/home/id/ai.evidence-0", 3, root)
    assert checkpoint("".join(TEXT.splitlines(keepends=True)[:3])) == checkpoint(TEXT)


@pytest.mark.parametrize(
    "text",
    [
        "", "a\n", "a\n1\n", TEXT.partition("=")[0] + "=", TEXT[TEXT.index("\n") :],
        TEXT.replace("\n3\n", "\n03\n"), TEXT.replace("\n3\n", "\n-3\n"), TEXT.replace("\n3\n", "\n\n"),
        TEXT.replace("\n3\n", "\n\u0663\n"), TEXT.replace("\n3\n", "\n3.0\n"), TEXT.replace("SY=", "SZ="),
        TEXT.replace("MEw", ""),
    ],
)  # fmt: skip
def test_what_states_no_log(text):
    """A missing line, a size in another form, a root of another length or form: no checkpoint."""
    with pytest.raises(NoteError, match="no checkpoint"):
        checkpoint(text)
