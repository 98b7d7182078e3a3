"""Paths as an evidence store has them, and what lies in one."""

from __future__ import annotations

COMMIT = "logs/c1.ai.evidence-0/commits/000000000000"
TILE = "logs/c1.ai.evidence-0/tile/0/x001/x234/067.p/13"


def paths(files, prefix=""):
    """Give the paths in a list."""
    return [entry.path for entry in files.list(prefix)]
