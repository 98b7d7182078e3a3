"""Memory for pure functions whose answers come again and again."""

from __future__ import annotations

from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST: Final = 8192
"""Answers that are remembered."""


class Memory(dict[K, V]):
    """A dictionary that forgets everything when it is full, which is simple and rare.

    A key may hold the `id` of an object where the answer holds the object itself: it lives as long as its answer.
    """

    def keep(self, key: K, value: V) -> V:
        """Remember an answer, and give it."""
        if len(self) >= MOST:
            self.clear()
        self[key] = value
        return value
