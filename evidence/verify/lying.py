"""What lies in a log's folder, sorted by the names of the files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from evidence.verify.source import Entry
from evidence.verify.tree import parse_tile_path

_NUMBER: Final = re.compile(r"\d{12}", re.ASCII)
_PACK: Final = re.compile(r"(\d{12})-(\d{12})\.pack", re.ASCII)
_SNAPSHOT: Final = re.compile(r"(\d{12})\.json", re.ASCII)
_STATEMENT: Final = re.compile(r"([0-9a-f]{64})\.json", re.ASCII)


@dataclass(slots=True)
class Lying:
    """What lies in a log's folder."""

    commits: set[int] = field(default_factory=set)
    packs: set[tuple[int, int, str]] = field(default_factory=set)
    tiles: dict[int, dict[int, set[int]]] = field(default_factory=dict)
    snapshots: dict[int, str] = field(default_factory=dict)
    witness: dict[int, list[str]] = field(default_factory=dict)
    statements: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def sort(self, folder: str, entry: Entry) -> None:
        """Put a file where it belongs by its name."""
        rest = entry.path.removeprefix(f"logs/{folder}/")
        head, _, name = rest.partition("/")
        tile = parse_tile_path(rest)
        if head == "commits" and _NUMBER.fullmatch(name):
            self.commits.add(int(name))
        elif head == "commits" and (match := _PACK.fullmatch(name)):
            self.packs.add((int(match[1]), int(match[2]), entry.path))
        elif tile is not None:
            level, number, width = tile
            self.tiles.setdefault(level, {}).setdefault(number, set()).add(width)
        elif head == "live" and (match := _SNAPSHOT.fullmatch(name)):
            self.snapshots[int(match[1])] = entry.path
        elif head == "witness" and "/" in name and _NUMBER.fullmatch(name.rpartition("/")[2]):
            self.witness.setdefault(int(name.rpartition("/")[2]), []).append(entry.path)
        elif head == "statements" and (match := _STATEMENT.fullmatch(name)):
            self.statements[match[1]] = entry.path
        else:
            self.unknown.append(entry.path)
