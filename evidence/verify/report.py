"""What a check found, and how it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

CANNOT_SEE: Final = (
    "an event that was never written to the topic, or was written with a lie in it",
    "rows that the holder of the signing key left out or changed before the first commit that covers them",
    "a history that the key's holder wrote anew: keep earlier commits (--since) or have a witness sign (--witness)",
    "commits cut off at the end, without --since, --witness or --max-age",
    "a whole topic whose logs are all gone",
    "which offsets without a row held no record at all: the topic alone can tell",
)
"""What no check of the files can tell."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """A stable, lower-case name for its sort."""

    where: str
    """The file, or the log, that it was found in."""

    what: str
    """A sentence."""

    order: tuple[int, int] = (9, 0)
    """Phase and position, by which the first of a log is told."""

    def __str__(self) -> str:
        return f"{plain(self.where)}: {plain(self.what)}"


@dataclass(slots=True)
class LogSummary:
    """One log, in numbers."""

    origin: str
    commits: int = 0
    size: int = 0
    root: str = ""
    next: int = 0
    time: str = ""
    files: int = 0
    expired: int = 0
    rejected: int = 0
    lost: int = 0
    stories: int = 0
    open: int = 0
    signed_from: int = 0
    cosigned: str = ""


@dataclass(slots=True)
class Report:
    """The result of a check."""

    store: str
    logs: list[LogSummary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    losses: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0
    accept_loss: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything is as it must be."""
        return not self.findings and (self.accept_loss or not self.losses)

    @property
    def first(self) -> Finding | None:
        """The first thing that is wrong."""
        wrong = [*self.findings, *([] if self.accept_loss else self.losses)]
        return wrong[0] if wrong else None

    def to_json(self) -> str:
        """Give the report as JSON."""
        first = self.first
        return json.dumps(
            {
                "ok": self.ok,
                "store": self.store,
                "first": _finding(first) if first else None,
                "findings": [_finding(finding) for finding in self.findings],
                "losses": [_finding(finding) for finding in self.losses],
                "logs": [{name: getattr(log, name) for name in log.__slots__} for log in self.logs],
                "notes": [plain(note) for note in self.notes],
                "rows": self.rows,
                "seconds": round(self.seconds, 3),
                "cannotSee": CANNOT_SEE,
            },
            indent=2,
        )

    def to_text(self, most: int = 20) -> str:
        """Give the report for people; at most so many findings are listed."""
        lines = []
        first = self.first
        if first is not None:
            lines += [f"WRONG  {first}", ""]
            others = [finding for finding in [*self.findings, *self.losses] if finding is not first]
            lines += [f"       {finding}" for finding in others[: most - 1]]
            if len(others) > most - 1:
                lines.append(f"       … and {len(others) - most + 1:,} more")
        elif self.losses:
            lines += [f"LOSS   {finding} (accepted)" for finding in self.losses[:most]]
        for log in self.logs:
            lines.append(
                f"{log.origin}: {log.commits:,} commits, {log.size:,} rows in {log.files:,} files, "
                f"next offset {log.next}, last commit {log.time or 'none'}"
            )
            more = [
                f"{number:,} {name}"
                for number, name in (
                    (log.expired, "expired"),
                    (log.rejected, "rejected"),
                    (log.lost, "lost"),
                    (log.stories, "whole stories"),
                    (log.open, "open stories"),
                )
                if number
            ]
            if log.cosigned:
                more.append(log.cosigned)
            if more:
                lines.append(f"    {', '.join(more)}")
        lines += [f"note: {plain(note)}" for note in self.notes]
        rate = f", {self.rows / self.seconds:,.0f} rows/s" if self.seconds else ""
        lines.append(f"{'OK' if self.ok else 'NOT OK'}: {self.rows:,} rows derived anew in {self.seconds:.1f} s{rate}")
        if self.ok:
            lines += ["No check of files can see:", *(f"  - {item}" for item in CANNOT_SEE)]
        return "\n".join(lines)


def plain(text: str) -> str:
    """Give text without anything that a terminal would act on or could not show."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in safe)


def _finding(finding: Finding) -> dict[str, Any]:
    return {"kind": finding.kind, "where": plain(finding.where), "what": plain(finding.what)}
