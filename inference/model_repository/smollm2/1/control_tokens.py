"""Control tokens of a model's vocabulary, and texts in which there are none.

A chat template marks turns by control tokens such as `<|im_end|>`. The library reads the whole prompt, texts of
messages included, with these tokens in force, so that a message could end its own turn and begin one of another role.
Here each place of a text at which such a token would begin gets a zero-width space behind its first character: the text
reads the same, and is nothing but text to the model.

It needs the standard library alone, as its neighbour `engine.py` does.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterable
from pathlib import Path

BREAK = "\u200b"
"""What is put into a text to break a token up."""

_MAGIC = b"GGUF"
_TOKENS, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_STRING, _ARRAY = 8, 9
_SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MARKED = re.compile(r"[<\[{(].*[>\]})]", re.DOTALL)
"""How control tokens look that a vocabulary calls words of its user's, or does not rate at all."""


def read_control_tokens(gguf: Path) -> tuple[str, ...]:
    """Return the texts of a model's control tokens.

    Raises:
        ValueError: the file is no GGUF of version 2 or 3, or holds no vocabulary.
    """
    with gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = _Reader(data).read((_TOKENS, _TYPES))
        except (struct.error, KeyError, IndexError) as error:
            raise ValueError(f"{gguf.name} cannot be read as GGUF: {type(error).__name__}") from None
    texts = found.get(_TOKENS)
    if not texts:
        raise ValueError(f"{gguf.name} holds no vocabulary")
    kinds = found.get(_TYPES) or [_USER_DEFINED] * len(texts)
    return tuple(
        text
        for text, kind in zip(texts, kinds, strict=True)
        if text and (kind in (_UNKNOWN, _CONTROL) or (kind == _USER_DEFINED and _MARKED.fullmatch(text)))
    )


class TextGuard:
    """Breaks control tokens up in texts of messages.

    Args:
        tokens: their texts.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(sorted(set(tokens), key=len, reverse=True))
        alternatives = "|".join(re.escape(token) for token in self.tokens)
        # A look-ahead finds also those that begin within another one.
        self._begins = re.compile(f"(?=(?:{alternatives}))(.)", re.DOTALL) if self.tokens else None

    def clean(self, text: str) -> str:
        """Return a text that reads the same and holds no control token."""
        return self._begins.sub(rf"\1{BREAK}", text) if self._begins else text


class _Reader:
    """Reads the metadata of a GGUF file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def read(self, wanted: tuple[str, ...]) -> dict[str, list]:
        """Return the arrays of these names, as far as they are there."""
        magic, version = self._bytes(4), self._number("I")
        if magic != _MAGIC or version not in (2, 3):
            raise ValueError("the model file is no GGUF of version 2 or 3")
        self._number("Q")  # tensors
        found = {}
        for _ in range(self._number("Q")):
            name = self._text()
            value = self._value(self._number("I"), keep=name in wanted)
            if name in wanted:
                found[name] = value
            if len(found) == len(wanted):
                break
        return found

    def _value(self, kind: int, *, keep: bool) -> list | None:
        if kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner == _STRING:
                texts = [self._text(keep=keep) for _ in range(count)]
                return texts if keep else None
            if inner == _ARRAY:
                for _ in range(count):
                    self._value(inner, keep=False)
                return None
            form = f"<{count}{_SIZES[inner]}"
            size = struct.calcsize(form)
            values = list(struct.unpack(form, self._bytes(size))) if keep else None
            self._at += 0 if keep else size
            return values
        if kind == _STRING:
            self._text(keep=False)
        else:
            self._at += struct.calcsize(f"<{_SIZES[kind]}")
        return None

    def _number(self, form: str) -> int:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))[0]

    def _text(self, *, keep: bool = True) -> str:
        size = self._number("Q")
        if not keep:
            self._at += size
            return ""
        return self._bytes(size).decode("utf-8", "replace")

    def _bytes(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise IndexError
        self._at += size
        return part
