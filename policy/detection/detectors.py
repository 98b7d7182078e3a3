"""Classification by what a text holds: personal data, account numbers and secrets, with their exact places.

One pass of an RE2 set says which kinds could be there at all; most texts stop here. Only for those kinds, spans are
searched and checked (checksums, issued ranges, shapes, entropy).

What stays out of reach: names and postal addresses in prose (`policy.detection.names` looks for names, where the labels
ask for them), and anything split over several texts. The caller joins the parts of one request (with a line end between
them) before it scans; an identifier that is cut across two *messages* is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import re2

from evidence.errors import PermanentError
from policy.detection import escapes, numbers
from policy.detection.addresses import ADDRESSES
from policy.detection.escapes import unescape
from policy.detection.finder import Finder
from policy.detection.folding import CONTROLS, fold, offsets
from policy.detection.kinds import KINDS, Category
from policy.detection.secrets import SECRETS

_BLANK = "\x1e"
"""Overwrites what has been found before the next look; like a placeholder, it can be part of no finding."""

_ROUNDS = 8
"""How often a text is looked at again; more than this means that somebody plays with the scanner."""

_ESCAPED_ROUNDS = 3
"""The same for the text with its escapes undone."""

_NUMBERS, _ESCAPES, _CONTROLS = -1, -2, -3
"""What may be there besides the finders' things, by triggers of their own."""

_REACH = 1024
"""Characters around what was blanked that are looked at again; no bounded expression with its context is longer."""

_EDGE = 64
"""Characters at an edge of such a stretch that serve as context only."""

FINDERS: tuple[Finder, ...] = ADDRESSES + SECRETS
"""Every finder that works by letters."""


class DetectionError(PermanentError):
    """A text could not be scanned; the caller treats it as the highest class (`scan_closed` does)."""


class Finding(NamedTuple):
    """Something that a text holds."""

    kind: str
    """What it is: a name in `policy.detection.kinds.KINDS`."""

    start: int
    """Where it begins, in characters of the text as given."""

    end: int
    """Where it ends, exclusive; greater than `start`."""

    @property
    def category(self) -> Category:
        """The family of its kind."""
        return KINDS[self.kind].category


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan that never raises has to say."""

    findings: tuple[Finding, ...]
    """What was found, in order; empty where the scan failed."""

    failed: bool
    """True where the scan failed, so that nothing is known about the text."""


class Detectors:
    """All detectors, compiled once; immutable afterwards, so that threads and tasks share one."""

    def __init__(self, *, max_memory: int = 32 << 20) -> None:
        """Compile the prefilter.

        Args:
            max_memory: bytes that the automaton may use.

        Raises:
            DetectionError: the patterns do not compile within `max_memory`.
        """
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = max_memory
        options.log_errors = False
        by_trigger: dict[bytes, list[int]] = {
            numbers.TRIGGER: [_NUMBERS],
            escapes.TRIGGER: [_ESCAPES],
            CONTROLS.encode(): [_CONTROLS],
        }
        for index, finder in enumerate(FINDERS):
            by_trigger.setdefault(finder.trigger, []).append(index)
        self._set = re2.Set.SearchSet(options)
        self._wanted = tuple(tuple(indices) for indices in by_trigger.values())
        try:
            for trigger in by_trigger:
                self._set.Add(trigger)
            # RE2 reports "out of memory" in the same way as "no match" (google/re2 issue 136). An expression that
            # always matches tells them apart: where it is missing from the answer, there was no answer.
            self._sentinel: int = self._set.Add(rb"\z")
            self._set.Compile()
        except re2.error as error:
            raise DetectionError(f"the detectors do not compile within {max_memory} bytes: give more") from error

    def scan(self, text: str) -> tuple[Finding, ...]:
        """Find everything in a text.

        Findings come sorted and do not overlap. Where candidates overlap, their union becomes one finding, so that no
        part of either stays behind; it takes the most severe kind, then the longest candidate, then the
        order of `KINDS`. What is found is blanked and the rest looked at again until nothing more appears: removing a
        finding never uncovers another.

        Raises:
            DetectionError: the text could not be scanned; treat it as the highest class.
        """
        folded = fold(text, controls=False)  # the prefilter sees controls at no cost
        wanted = self._triggered(folded.encode("ascii"))
        if _CONTROLS in wanted and folded is text:
            folded = fold(text)
            wanted = self._triggered(folded.encode("ascii"))
        if not wanted or wanted == [_CONTROLS]:  # here, of a character that looks like nothing in ASCII
            return ()
        found = self._found(folded, wanted)
        if not found:
            return ()
        if folded is text:
            return _merge(found)
        back = offsets(text)
        return _merge([Finding(finding.kind, *back.span(finding.start, finding.end)) for finding in found])

    def _found(self, text: str, wanted: Iterable[int]) -> list[Finding]:
        """Return what is found in a folded text, as it is and as it reads with its escapes undone."""
        found, left = self._looked(text, wanted)
        for _ in range(_ESCAPED_ROUNDS if _ESCAPES in wanted else 0):
            plain = unescape(left)
            more, _ = self._looked(plain.text, self._triggered(plain.text.encode("ascii")))
            if not more:
                return found
            fresh = _merge([Finding(finding.kind, *plain.span(finding.start, finding.end)) for finding in more])
            found += fresh
            # What was uncovered by that, in the text as it is, is looked for too, as removing must uncover nothing.
            more, left = self._looked(_blanked(left, fresh), wanted)
            found += more
        if _ESCAPES in wanted:
            raise _restless()
        return found

    def _looked(self, text: str, wanted: Iterable[int]) -> tuple[list[Finding], str]:
        """Return what is found in a text, and the text with that overwritten, which holds nothing more."""
        found: list[Finding] = []
        fresh = _merge(_candidates(text, wanted)) if max(wanted, default=_CONTROLS) >= _NUMBERS else ()
        for _ in range(_ROUNDS):
            if not fresh:
                return found, text
            found.extend(fresh)
            text = _blanked(text, fresh)
            fresh = self._again(text, fresh)
        raise _restless()

    def scan_closed(self, text: str) -> ScanResult:
        """Scan without ever raising: any failure is reported as such, and counts as the highest class."""
        try:
            return ScanResult(self.scan(text), failed=False)
        except Exception:  # noqa: BLE001 - whatever went wrong, nothing is known about the text
            return ScanResult((), failed=True)

    def _again(self, text: str, blanked: tuple[Finding, ...]) -> tuple[Finding, ...]:
        """Return what is found now that something has been blanked, which is looked for only around it."""
        found: list[Finding] = []
        for low, high in _stretches(blanked, len(text)):
            part = text[low:high]
            wanted = self._triggered(part.encode("ascii"))
            if max(wanted) < _NUMBERS:  # what was blanked counts as a control
                continue
            least, most = (_EDGE if low else 0), (len(part) - _EDGE if high < len(text) else len(part))
            for finding in _merge(_candidates(part, wanted, _BLANK)):
                if finding.start >= least and finding.end <= most:
                    found.append(Finding(finding.kind, low + finding.start, low + finding.end))
                elif finding.end - finding.start > _REACH - 2 * _EDGE:  # it reaches from an edge to what has changed
                    return _merge(_candidates(text, self._triggered(text.encode("ascii")), _BLANK))
        return tuple(found)

    def _triggered(self, data: bytes) -> list[int]:
        """Give the finders that could find something."""
        hits = self._set.Match(data) or ()
        if self._sentinel not in hits:
            raise DetectionError("the prefilter ran out of memory on this text: treat it as the highest class")
        if len(hits) == 1:
            return []
        return [index for hit in hits if hit != self._sentinel for index in self._wanted[hit]]


def _restless() -> DetectionError:
    return DetectionError(f"the text still shows new findings after {_ROUNDS} looks: treat it as the highest class")


def _stretches(found: Iterable[Finding], size: int) -> Iterator[tuple[int, int]]:
    """Return the stretches of a text around findings, which are sorted; they do not overlap."""
    low = high = 0
    for finding in found:
        begin = max(0, finding.start - _REACH)
        if begin > high:
            if high:
                yield low, high
            low = begin
        high = min(size, finding.end + _REACH)
    yield low, high


def _candidates(text: str, wanted: Iterable[int], changed: str = "") -> list[Finding]:
    """Give all candidates; of numbers, only those near the character `changed`, where there is one."""
    data = text.encode("ascii")
    found: list[Finding] = []
    for index in wanted:
        if index in (_ESCAPES, _CONTROLS):
            continue
        if index == _NUMBERS:
            found.extend(Finding(number.kind, number.start, number.end) for number in numbers.find(text, data, changed))
        else:
            finder: Finder = FINDERS[index]
            found.extend(Finding(finder.kind, start, end) for start, end in finder.find(text, data))
    return found


def together(*tiers: Iterable[Finding]) -> tuple[Finding, ...]:
    """Join what several detectors found in one text: sorted, without overlaps, as `Detectors.scan` gives it."""
    return _merge([finding for tier in tiers for finding in tier])


def _blanked(text: str, found: Iterable[Finding]) -> str:
    """Overwrite what has been found, which is sorted."""
    pieces: list[str] = []
    position = 0
    for finding in found:
        pieces += text[position : finding.start], _BLANK * (finding.end - finding.start)
        position = finding.end
    pieces.append(text[position:])
    return "".join(pieces)


_ORDER = {kind: index for index, kind in enumerate(KINDS)}


def _merge(candidates: list[Finding]) -> tuple[Finding, ...]:
    """Join overlapping candidates into unions that carry the most telling kind."""
    if len(candidates) < 2:  # noqa: PLR2004 - one overlaps with nothing
        return tuple(candidates)
    merged: list[Finding] = []
    best: Finding | None = None
    end = start = 0
    for candidate in sorted(candidates, key=lambda finding: (finding.start, -finding.end)):
        if best is not None and candidate.start < end:
            best = max(best, candidate, key=_weight)
            end = max(end, candidate.end)
            continue
        if best is not None:
            merged.append(Finding(best.kind, start, end))
        best, start, end = candidate, candidate.start, candidate.end
    if best is not None:
        merged.append(Finding(best.kind, start, end))
    return tuple(merged)


def _weight(finding: Finding) -> tuple[int, int, int]:
    return KINDS[finding.kind].severity, finding.end - finding.start, -_ORDER[finding.kind]
