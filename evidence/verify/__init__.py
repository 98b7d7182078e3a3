"""The independent checker: needs the files and a public key, and shares no code with what wrote them.

Everything is derived anew from the bytes and compared with what the signed commits say; `docs/evidence-format.md` is
all that it was written from. It imports nothing else of this project.
"""

from __future__ import annotations

from evidence.verify.check import Progress, UsageError, verify
from evidence.verify.report import Finding, LogSummary, Report

__all__ = ["Finding", "LogSummary", "Progress", "Report", "UsageError", "verify"]
