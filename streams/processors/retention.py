"""Retention: what of an answer may be kept, decided in memory before it is written anywhere (promise P6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from evidence.records import Retained
from policy.detection.detectors import ScanResult
from policy.redaction import filter_text
from policy.retention import AnswerLike


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of an answer."""

    text: str
    """What may be written; empty where the answer is withheld."""

    retained: Retained
    """What was done to it."""

    withheld: bool
    """Whether nothing of it may be kept."""


FAILED: Final = "detector_failed"
"""Stands among what was removed of an answer that could not be looked at."""


def keep(text: str, rule: AnswerLike, result: ScanResult) -> Kept:
    """Apply a rule to an answer; credentials are masked whatever the rule says.

    Detectors that fail close the way: nothing is kept of an answer that could not be looked at.

    Args:
        text: the answer.
        rule: what may not be kept of it.
        result: what was found in it.
    """
    if result.failed:
        return Kept("", Retained(action="refuse", removed=(FAILED,)), withheld=True)
    forbidden = tuple(finding for finding in result.findings if finding.category in {*rule.forbid, "secret"})
    if not forbidden:
        return Kept(text, Retained(action="keep"), withheld=False)
    filtered = filter_text(text, forbidden, rule.action)
    kinds = tuple(sorted({finding.kind for finding in forbidden}))
    return Kept(filtered.text, Retained(action=rule.action, removed=kinds), withheld=filtered.refused)
