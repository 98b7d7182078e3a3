"""Signed notes, as C2SP `signed-note` has them, with Ed25519 signatures and the cosignatures of witnesses.

A note is a text, a blank line, and a line for each signature: `— <key's name> <base64>`. Notes are read strictly: what
cannot have been written by `sign` in exactly these bytes is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from evidence.errors import ConfigError, StoreError

LOG_KEY: Final = 0x01
"""Kind of a key that signs notes (Ed25519 over the text)."""

WITNESS_KEY: Final = 0x04
"""Kind of a key that cosigns them (`cosignature/v1`: Ed25519 over the moment and the text)."""

_NAME: Final = re.compile(r"[^\s+]{1,200}")
_KEY_ID_BYTES: Final = 4
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = {LOG_KEY: 64, WITNESS_KEY: 72}
_MOST_BYTES: Final = 64 * 1024 * 1024  # a note has to be held in memory several times over
_MOST_SIGNATURES: Final = 100  # as other readers of signed notes have it
_DASH: Final = "\u2014 "
_MOST_SECONDS: Final = (1 << 63) - 1


class NoteError(StoreError):
    """A note is not one, or is not signed as it has to be."""


class NotSignedError(NoteError):
    """No known key signed a note."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified, or one of a key that is not known."""

    name: str
    """Name of the key."""

    key_id: bytes
    """Its four bytes."""

    data: bytes
    """What stands behind the key id."""

    vkey: str | None = None
    """The verifier key that verified it; None says that it is not known."""

    time: int | None = None
    """A witness's moment, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Note:
    """A note of which at least one signature is of a known key."""

    text: str
    """What was signed, with the line end at its end."""

    signatures: tuple[Signature, ...]
    """Signatures of known keys, all of them valid, in the order of the note."""

    unknown: tuple[Signature, ...] = ()
    """Signatures of keys that are not known, which say nothing."""

    def signed_by(self, vkey: str) -> bool:
        """Tell whether a key signed it."""
        return any(signature.vkey == vkey for signature in self.signatures)


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public half of a key."""

    name: str
    """Name of the key, without blanks and `+`."""

    key: bytes
    """The Ed25519 public key."""

    kind: int = LOG_KEY
    """`LOG_KEY` or `WITNESS_KEY`."""

    def __post_init__(self) -> None:
        if not _name_is_fine(self.name):
            raise ConfigError(
                f"{self.name[:80]!r} cannot be the name of a key: no blanks, no `+`, at most 200 characters"
            )
        if self.kind not in _SIGNATURE_BYTES or len(self.key) != _KEY_BYTES:
            raise ConfigError(f"{self.name}: not an Ed25519 key, which is all that is known here")

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Read a verifier key, `<name>+<key id>+<base64>`.

        Raises:
            ConfigError: it is not one.
        """
        try:
            name, _, encoded = vkey.split("+", maxsplit=2)
            data = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise ConfigError(f"{vkey[:120]!r} is no verifier key, `<name>+<key id>+<base64>`") from None
        verifier = cls(name, data[1:], data[0] if data else 0)
        if verifier.vkey != vkey:
            raise ConfigError(f"{vkey[:120]!r} is no verifier key: it should be {verifier.vkey}, if the key is right")
        return verifier

    @property
    def key_id(self) -> bytes:
        """The four bytes that signatures are found by."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.key).digest()[:_KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as text."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.key).decode()}"

    def verified(self, text: str, signature: Signature) -> Signature:
        """Check a signature of this key, and give it with what it says.

        Raises:
            NoteError: it is not valid.
        """
        time = None
        signed, data = text.encode(), signature.data
        if len(data) == _SIGNATURE_BYTES[self.kind]:
            if self.kind == WITNESS_KEY:
                time, data = int.from_bytes(data[:8]), data[8:]
                signed = _cosigned(text, time)
            try:
                Ed25519PublicKey.from_public_bytes(self.key).verify(data, signed)
            except InvalidSignature:
                pass
            else:
                return Signature(signature.name, signature.key_id, signature.data, self.vkey, time)
        raise NoteError(f"the signature of {self.name}+{self.key_id.hex()} is not valid: the note was changed")


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs notes."""

    name: str
    """Name of the key."""

    key: Ed25519PrivateKey = field(repr=False, compare=False)
    """The private key."""

    kind: int = LOG_KEY
    """`LOG_KEY` or `WITNESS_KEY`."""

    verifier: Verifier = field(init=False)
    """The public half."""

    def __post_init__(self) -> None:
        verifier = Verifier(self.name, self.key.public_key().public_bytes_raw(), self.kind)
        object.__setattr__(self, "verifier", verifier)

    @property
    def vkey(self) -> str:
        """The public half as text."""
        return self.verifier.vkey

    def sign(self, text: str, *others: Signer) -> bytes:
        """Give a text as a note signed with this key and others.

        Raises:
            NoteError: the text cannot be a note's.
        """
        return sign(text, self, *others)

    def cosign(self, note: bytes, *, at: int) -> bytes:
        """Give a note with a witness's signature behind the others, none of which is checked.

        Args:
            note: the note.
            at: the moment, in seconds since 1970.

        Raises:
            NoteError: it is no note.
        """
        text, lines = _split(note)
        if not 0 <= at <= _MOST_SECONDS:
            raise NoteError(f"{at} is no moment that a witness can sign")
        mine = [line for line in lines if (line.name, line.key_id) == (self.name, self.verifier.key_id)]
        if mine or self.kind != WITNESS_KEY:
            raise NoteError(f"{self.vkey} cannot cosign: " + ("it has signed already" if mine else "no witness's key"))
        signature = at.to_bytes(8) + self.key.sign(_cosigned(text, at))
        return note + self._line(signature).encode()

    def line(self, text: str) -> str:
        """Give the signature line for a text."""
        if self.kind != LOG_KEY:
            raise NoteError(f"{self.vkey} is a witness's key, which only cosigns")
        return self._line(self.key.sign(text.encode()))

    def _line(self, signature: bytes) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


def sign(text: str, *signers: Signer) -> bytes:
    """Give a text as a signed note.

    Raises:
        NoteError: the text cannot be a note's, or nobody signs.
    """
    _check_text(text)
    if not signers or len({signer.vkey for signer in signers}) != len(signers):
        raise NoteError("a note is signed by at least one key, and by each once")
    return "".join([text, "\n", *(signer.line(text) for signer in signers)]).encode()


def open_note(data: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Read a note and check all its signatures whose keys are known.

    Args:
        data: the note.
        verifiers: the keys that are known; at least one has to have signed.

    Raises:
        NoteError: it is no note, or a signature of a known key is not valid.
        NotSignedError: none is of a known key.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    text, lines = _split(data)
    signatures, unknown = [], []
    for line in lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is None:
            unknown.append(line)
        else:
            signatures.append(verifier.verified(text, line))
    if not signatures:
        names = ", ".join(f"{line.name}+{line.key_id.hex()}" for line in unknown)
        raise NotSignedError(f"the note is signed by no key that is known, only by {names}")
    return Note(text, tuple(signatures), tuple(unknown))


def _split(data: bytes) -> tuple[str, list[Signature]]:
    """Take a note apart."""
    if len(data) > _MOST_BYTES:
        raise NoteError(f"not a note: more than {_MOST_BYTES} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise NoteError("not a note: not UTF-8") from None
    begin, blank, block = whole.rpartition("\n\n")
    if not blank or not block.endswith("\n"):
        raise NoteError("not a note: no blank line with signature lines behind it")
    text = f"{begin}\n"
    _check_text(text)
    found = [_signature(line) for line in block[:-1].split("\n")]
    if len(found) > _MOST_SIGNATURES or len({(line.name, line.key_id) for line in found}) != len(found):
        raise NoteError(f"not a note: a key signs once, and at most {_MOST_SIGNATURES} do")
    return text, found


def _check_text(text: str) -> None:
    if not text.endswith("\n") or text == "\n" or any(char < " " and char != "\n" for char in set(text)):
        raise NoteError("not a note's text: lines without control characters, each with its line end")


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    fine = line.startswith(_DASH) and _name_is_fine(name) and len(data) > _KEY_ID_BYTES and _encoded(data) == encoded
    if not fine:
        raise NoteError(f"not a note: {line[:80]!r} is no signature line")
    return Signature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _name_is_fine(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.isprintable()


def _encoded(data: bytes) -> str:
    # A decoder takes some texts for the same bytes; only one of them is what an encoder writes.
    return base64.b64encode(data).decode()
