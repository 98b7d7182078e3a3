"""Classification: what the data is held to be, from what was declared and what was found."""

from __future__ import annotations

from typing import Protocol

from evidence.records import Classification
from policy.detectors import ScanResult, effective
from policy.labels import HIGHEST, DataClass


class Scanner(Protocol):
    """Finds personal data and secrets in a text."""

    def scan_closed(self, text: str) -> ScanResult:
        """Give what was found; an inner failure is a result, not an exception."""
        ...


def classify(declared: DataClass, text: str, scanner: Scanner) -> Classification:
    """Give the higher of the declared class and what the text is found to hold.

    Detectors that fail close the way: the text counts as the highest class, and the result says so.
    """
    result = scanner.scan_closed(text)
    if result.failed:
        return Classification(declared=declared, detected=HIGHEST, effective=HIGHEST, detector="failed")
    if not result.findings:
        return Classification(declared=declared, effective=declared)
    return Classification(
        declared=declared,
        detected=effective(DataClass.PUBLIC, result.findings),
        effective=effective(declared, result.findings),
        findings=tuple(sorted({finding.kind for finding in result.findings})),
    )
