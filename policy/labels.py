"""How sensitive data is: four labels in one order, the lattice that classification and routing agree on.

The order is public < internal < confidential < restricted. It is total, so the join of two labels is simply the higher.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Never

from evidence.errors import RecordError

_SHOWN = 40
"""Characters of an unknown label that an error repeats; the rest may be anything, secrets included."""


class DataClass(StrEnum):
    """A classification label; written on topics and in evidence as its lower-case word.

    `<`, `<=`, `>`, `>=`, `max`, `min` and `sorted` go by sensitivity. Comparing the order with a bare string raises
    `TypeError`, because a string's own order is alphabetical (`"confidential" < "public"`) and would be believed.
    """

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        """The place in the order: 0 for public to 3 for restricted."""
        return _RANKS[self]

    def at_most(self, ceiling: DataClass) -> bool:
        """Say whether data of this class may go where at most `ceiling` may go."""
        return self.rank <= ceiling.rank

    def __lt__(self, other: str) -> bool:
        return self.rank < _rank(other)

    def __le__(self, other: str) -> bool:
        return self.rank <= _rank(other)

    def __gt__(self, other: str) -> bool:
        return self.rank > _rank(other)

    def __ge__(self, other: str) -> bool:
        return self.rank >= _rank(other)


_RANKS = {label: rank for rank, label in enumerate(DataClass)}

HIGHEST = DataClass.RESTRICTED
"""What is assumed where classification failed."""


def _rank(other: object) -> int:
    return other.rank if isinstance(other, DataClass) else _not_a_label(other)


def _not_a_label(other: object) -> Never:
    # Not NotImplemented: Python would then ask str, which compares alphabetically.
    raise TypeError(f"a data class is ordered among data classes only, not with {type(other).__name__}: parse it first")


def join(a: DataClass, b: DataClass) -> DataClass:
    """Give the class of data that holds both: the higher of the two."""
    return a if a.rank >= b.rank else b


def parse(label: str) -> DataClass:
    """Read a label exactly as written; there is no default and no guessing at spelling or case.

    Raises:
        RecordError: code `unknown_label`; its text lists the known labels.
    """
    try:
        return DataClass(label)
    except ValueError:
        shown = repr(label[:_SHOWN]) if isinstance(label, str) else type(label).__name__
        known = ", ".join(DataClass)
        raise RecordError(
            "unknown_label", f"unknown data classification {shown}: use one of {known} (lower case, lowest first)"
        ) from None
