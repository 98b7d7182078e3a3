"""Taking findings out of a text: pure functions from text and findings to text.

The findings must be those of exactly this text (`Detectors.scan(text)`): they are places in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from policy.detection.detectors import Finding
from policy.detection.kinds import KINDS

Action = Literal["mask", "drop", "refuse"]
Style = Literal["typed", "numbered"]


@dataclass(frozen=True, slots=True)
class Filtered:
    """A text after filtering, and what that took."""

    text: str
    """What may go on; empty where it was refused."""

    removed: tuple[tuple[str, int], ...]
    """What was taken out, as pairs of kind and count, sorted by kind; never the values themselves."""

    refused: bool
    """True where the whole text was held back because something was found."""


def mask(text: str, findings: Sequence[Finding], *, style: Style = "typed") -> str:
    """Put a placeholder in the place of each finding.

    Args:
        text: the text that was scanned.
        findings: what the scan found, sorted and without overlaps.
        style: "typed" writes `[EMAIL]`; "numbered" writes `[EMAIL_1]`, the same number for the same value, so that a
            reader still sees who is who.

    Raises:
        ValueError: the findings are not sorted places of this text; nothing was masked.
    """
    numbers: dict[tuple[str, str], int] = {}
    counts: Counter[str] = Counter()
    pieces: list[str] = []
    position = 0
    for finding in findings:
        _check(text, finding, position)
        word = KINDS[finding.kind].placeholder
        if style == "numbered":
            key = finding.kind, text[finding.start : finding.end]
            if key not in numbers:
                counts[finding.kind] += 1
                numbers[key] = counts[finding.kind]
            word = f"{word}_{numbers[key]}"
        pieces += text[position : finding.start], f"[{word}]"
        position = finding.end
    pieces.append(text[position:])
    return "".join(pieces)


def drop(text: str, findings: Sequence[Finding]) -> str:
    """Take each finding out; one space stays where two words would otherwise grow together.

    Raises:
        ValueError: the findings are not sorted places of this text; nothing was taken out.
    """
    pieces: list[str] = []
    position = 0
    for finding in findings:
        _check(text, finding, position)
        _append(pieces, text[position : finding.start])
        position = finding.end
    _append(pieces, text[position:])
    return "".join(pieces)


def filter_text(text: str, findings: Sequence[Finding], action: Action) -> Filtered:
    """Apply a retention or redaction rule to a text.

    Args:
        text: the text that was scanned.
        findings: what the scan found (or those of its findings that the rule speaks of), sorted and without overlaps.
        action: "mask" leaves placeholders, "drop" leaves nothing, "refuse" holds back the text if anything was found.

    Raises:
        ValueError: the findings are not sorted places of this text, or the action is unknown.
    """
    removed = tuple(sorted(Counter(finding.kind for finding in findings).items()))
    if action == "mask":
        return Filtered(mask(text, findings), removed, refused=False)
    if action == "drop":
        return Filtered(drop(text, findings), removed, refused=False)
    if action == "refuse":
        return Filtered("" if findings else text, removed, refused=bool(findings))
    raise ValueError(f"unknown action {action!r}: use mask, drop or refuse")


def _append(pieces: list[str], piece: str) -> None:
    """Add what comes next, none of which is empty; a space goes before it where two words would grow together."""
    if pieces and pieces[-1][-1].isalnum() and piece[:1].isalnum():
        pieces.append(" ")
    if piece:
        pieces.append(piece)


def _check(text: str, finding: Finding, position: int) -> None:
    if not position <= finding.start < finding.end <= len(text):
        raise ValueError(
            f"a finding at {finding.start}:{finding.end} is no place after {position} in a text of {len(text)}"
            " characters: pass the findings of this text, sorted and without overlaps"
        )
