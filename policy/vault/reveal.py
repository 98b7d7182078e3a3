"""Putting originals in the place of pseudonyms: pure functions from a text and a map to a text.

The map is what redaction made: `[EMAIL_1]` and the like, each with the original that it stands for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from policy.vault.keys import VaultError

_PLACEHOLDER: Final = re.compile(r"\[([A-Z][A-Z0-9]*(?:_[A-Z][A-Z0-9]*)*)_\d+\]")


@dataclass(frozen=True, slots=True)
class Revealed:
    """A text with originals."""

    text: str
    """The text."""
    counts: tuple[tuple[str, int], ...]
    """How many places of which word (`EMAIL`) hold an original now, sorted; never the values."""
    unknown: int
    """How many placeholders stayed, because the map does not have them."""


def pack(originals: Mapping[str, str]) -> bytes:
    """Give the bytes of a map from placeholder (`[EMAIL_1]`) to original, as the vault seals them."""
    return orjson.dumps(dict(originals))


def unpack(data: bytes) -> dict[str, str]:
    """Read a map.

    Raises:
        VaultError: it is none.
    """
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise VaultError("what the vault keeps is no map of pseudonyms")
    return content


def reveal(text: str, originals: Mapping[str, str]) -> Revealed:
    """Put originals in the place of their placeholders, in one pass: an original is never looked into again."""
    counts: Counter[str] = Counter()
    unknown = 0

    def original(match: re.Match[str]) -> str:
        nonlocal unknown
        found = originals.get(match[0])
        if found is None:
            unknown += 1
            return match[0]
        counts[match[1]] += 1
        return found

    revealed = _PLACEHOLDER.sub(original, text)
    return Revealed(revealed, tuple(sorted(counts.items())), unknown)
