"""Signed notes and their keys, as C2SP `signed-note` and `tlog-cosignature` have them; strict."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519: Final = 0x01
"""Signature type of a log's own signature."""

COSIGNATURE: Final = 0x04
"""Signature type of a witness: with a timestamp (`cosignature/v1`)."""

MOST_SIGNATURES: Final = 100
"""A note with more signature lines is refused."""

_KEY_BYTES: Final = 33
_ID_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_STAMP_BYTES: Final = 8
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_LINE: Final = "\N{EM DASH} "


class NoteError(ValueError):
    """A note or a key that is not as it must be."""


def strict_base64(text: str) -> bytes:
    """Give the bytes that standard base64 stands for, if there is no other way to write them.

    Raises:
        NoteError: it is none, or not in its one form.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("base64 that cannot be read") from error
    if base64.b64encode(data).decode() != text:
        raise NoteError("base64 that is not in its one form")
    return data


def good_name(name: str) -> bool:
    """Tell whether a key may be called so: no blanks, no plus, nothing that cannot be seen."""
    return bool(name) and "+" not in name and not any(letter.isspace() or not letter.isprintable() for letter in name)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name."""

    name: str
    """Whose it is."""

    key_id: bytes
    """Its first four bytes of a hash, by which signatures name it."""

    kind: int
    """`ED25519` or `COSIGNATURE`."""

    public: bytes
    """The Ed25519 public key, 32 bytes."""

    def __str__(self) -> str:
        body = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{body}"

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Tell whether this key signed a note's text; `signature` is what follows the key id in its line."""
        if self.kind == COSIGNATURE:
            if len(signature) != _STAMP_BYTES + _SIGNATURE_BYTES:
                return False
            stamp = int.from_bytes(signature[:_STAMP_BYTES], "big")
            text, signature = b"cosignature/v1\ntime %d\n" % stamp + text, signature[_STAMP_BYTES:]
        return ed25519(self.public, signature, text)


def ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether a signature is good; one that is malformed is not."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_key(text: str) -> VerifierKey:
    """Read a verifier key, `<name>+<key id>+<base64>`.

    Raises:
        NoteError: it is none, or its key id does not belong to it.
    """
    name, _, rest = text.partition("+")
    key_id, _, body = rest.partition("+")
    if not good_name(name) or not key_id or not body:
        raise NoteError(f"a verifier key is `<name>+<key id>+<base64>`; {text[:60]!r} is none")
    data = strict_base64(body)
    if len(data) != _KEY_BYTES or data[0] not in (ED25519, COSIGNATURE):
        raise NoteError(f"the verifier key of {name} is not an Ed25519 key")
    made = hashlib.sha256(name.encode() + b"\n" + data).digest()[:_ID_BYTES]
    if made.hex() != key_id:
        raise NoteError(f"the verifier key of {name} has the key id {made.hex()}, not {key_id}")
    return VerifierKey(name, made, data[0], data[1:])


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    """Whose key."""

    key_id: bytes
    """Which key."""

    body: bytes
    """What follows the key id: the signature, for a witness with the timestamp in front."""

    line: str
    """The line as it stands."""

    def by(self, key: VerifierKey) -> bool:
        """Tell whether the line says that this key made it."""
        return self.name == key.name and self.key_id == key.key_id

    @property
    def seconds(self) -> int:
        """Give the time that a cosignature states, in seconds since 1970."""
        return int.from_bytes(self.body[:_STAMP_BYTES], "big")


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note, taken apart."""

    text: bytes
    """What is signed, the last newline included."""

    signatures: tuple[Signature, ...]
    """The signature lines, in their order."""

    def of(self, key: VerifierKey) -> Signature | None:
        """Give the line that says it is this key's."""
        return next((signature for signature in self.signatures if signature.by(key)), None)


def parse_note(data: bytes) -> Note:
    """Take a signed note apart; nothing is verified yet.

    Raises:
        NoteError: it is none.
    """
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise NoteError("not UTF-8") from error
    if _CONTROL.search(whole):
        raise NoteError("a control character")
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise NoteError("not a signed note: text, a blank line, signature lines, each with a newline at its end")
    lines = tail[:-1].split("\n")
    if len(lines) > MOST_SIGNATURES:
        raise NoteError(f"more than {MOST_SIGNATURES} signatures")
    return Note((text + "\n").encode(), tuple(_signature(line) for line in lines))


def _signature(line: str) -> Signature:
    name, blank, body = line.removeprefix(_LINE).partition(" ")
    if not line.startswith(_LINE) or not blank or not good_name(name):
        raise NoteError("a line behind the blank line that is no signature")
    data = strict_base64(body)
    if len(data) <= _ID_BYTES:
        raise NoteError(f"the signature of {name} is too short")
    return Signature(name, data[:_ID_BYTES], data[_ID_BYTES:], line)
