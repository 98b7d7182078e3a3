"""The redacted view: one text of a request for everybody who comes after admission.

It is made once, before anything is written. The model, the logs, the spans, the evidence and the dead letters all get
this view or less; the originals of its pseudonyms go along sealed, and can be revealed by somebody who gives a reason.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from policy.detection.detectors import Finding
from policy.detection.kinds import KINDS
from policy.questions import Style

ALWAYS: Final[Mapping[str, Style]] = {"secret": Style.MASK}
"""What is taken out of every request, wherever it goes: a credential is neither sent nor kept."""

_HASH_DIGITS: Final = 12

_SEVERITY: Final = (Style.PSEUDONYM, Style.HASH, Style.MASK, Style.DROP)
"""From what keeps most to what keeps least."""


def stricter(one: Style, other: Style) -> Style:
    """Give the style that keeps less."""
    return max(one, other, key=_SEVERITY.index)


class Redactor:
    """Takes findings out of the texts of one request; the same value gets the same pseudonym in all of them.

    Attributes:
        originals: what each pseudonym stands for.
        removed: how many findings of each kind were taken out.
        styles: how each category is taken out; what is not in it stays.
    """

    def __init__(self, styles: Mapping[str, Style], key: bytes) -> None:
        """Prepare for one request.

        Args:
            styles: how each category is taken out; a category that is not in it stays. One of `ALWAYS` goes in any
                case, and keeps no more than that says.
            key: for keyed hashes; belongs to one tenant.
        """
        self.originals: dict[str, str] = {}
        self.removed: Counter[str] = Counter()
        self.styles = {**styles, **{name: stricter(styles.get(name, style), style) for name, style in ALWAYS.items()}}
        self._key = key
        self._names: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()

    def take_out(self, text: str, findings: Sequence[Finding]) -> str:
        """Give a text without what must not stay in it.

        Args:
            text: the text that was scanned.
            findings: what was found in it, sorted and without overlaps.

        Raises:
            ValueError: the findings are not sorted places of this text.
        """
        pieces: list[str] = []
        position = 0
        for finding in findings:
            if not position <= finding.start < finding.end <= len(text):
                raise ValueError(f"a finding at {finding.start}:{finding.end} is no place of a text of {len(text)}")
            style = self.styles.get(finding.category)
            if style is None:
                continue
            self.removed[finding.kind] += 1
            pieces.append(text[position : finding.start])
            pieces.append(self._stand_in(style, finding.kind, text[finding.start : finding.end]))
            position = finding.end
        if not pieces:
            return text
        pieces.append(text[position:])
        return "".join(pieces)

    def _stand_in(self, style: Style, kind: str, value: str) -> str:
        word = KINDS[kind].placeholder
        match style:
            case Style.MASK:
                return f"[{word}]"
            case Style.DROP:
                return ""
            case Style.HASH:
                message = f"{kind}\x00{value}".encode()
                return f"[{word}:{hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_HASH_DIGITS]}]"
            case Style.PSEUDONYM:
                name = self._names.get((kind, value))
                if name is None:
                    self._numbers[word] += 1
                    name = self._names[kind, value] = f"[{word}_{self._numbers[word]}]"
                    self.originals[name] = value
                return name


def by_part(parts: Sequence[str], findings: Iterable[Finding], glue: int = 1) -> list[list[Finding]]:
    """Give the findings of each part, from those of the parts joined.

    Args:
        parts: the texts that were joined.
        findings: what was found in the joined text, sorted and without overlaps; one that lies over several parts is
            a finding of each of them.
        glue: characters between two parts.
    """
    result: list[list[Finding]] = [[] for _ in parts]
    found = list(findings)
    if not found:
        return result
    begin = at = 0
    for number, part in enumerate(parts):
        end = begin + len(part)
        while at < len(found) and found[at].start < end:
            finding = found[at]
            start, stop = max(finding.start, begin), min(finding.end, end)
            if start < stop:
                result[number].append(Finding(finding.kind, start - begin, stop - begin))
            if finding.end > end:
                break  # the rest of it lies in the next part
            at += 1
        begin = end + glue
        while at < len(found) and found[at].end <= begin:
            at += 1
    return result
