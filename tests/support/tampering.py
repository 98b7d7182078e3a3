"""Ways of tampering with a store: how each is registered, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plain_store import (
    PlainFile,
    PlainLog,
)

Tamper = Callable[[PlainLog], dict[str, Any] | None]


@dataclass(frozen=True)
class Case:
    """A way of tampering, and what must be said of it."""

    name: str
    kind: str
    says: str
    act: Tamper


CASES: list[Case] = []


def case(kind: str, says: str) -> Callable[[Tamper], Tamper]:
    """Register a way of tampering: the finding's kind, and words that it must hold."""

    def register(act: Tamper) -> Tamper:
        CASES.append(Case(act.__name__, kind, says, act))
        return act

    return register


def newest(log: PlainLog) -> int:
    """Give the number of the newest commit."""
    return len(log.commits) - 1


def a_file(log: PlainLog, place: int = -1) -> PlainFile:
    """Give a live file."""
    return list(log.live.values())[place]


def put(log: PlainLog, file: PlainFile, data: bytes) -> None:
    """Write other bytes in a file's place."""
    (log.root / file.path).write_bytes(data)


def forged(log: PlainLog, rows: list[dict[str, Any]], file: PlainFile, *signers: Any) -> PlainFile:
    """Put other rows into a file's place and make the commit that added it, the newest such one, say so."""
    number = next(n for n in reversed(range(len(log.commits))) if f"add {file.path} " in log.text(n))
    (log.root / file.path).unlink()
    made = log.file(rows, file.leaves, day=file.rows[0]["occurred_at"].date())
    made.leaves = file.leaves
    log.edit(number, lambda text: text.replace(file.line, made.line), *signers)
    log.chain_anew(number + 1, *signers)
    cosigned_anew(log)
    (log.home / "live" / f"{newest(log):012d}.json").unlink(missing_ok=True)
    packs(log)
    return made


def packs(log: PlainLog) -> None:
    """Write the packs anew."""
    for old in (log.home / "commits").glob("*.pack"):
        old.unlink()
    for number, data in enumerate(log.commits):
        log.write(log.commit_path(number), data)


def cosigned_anew(log: PlainLog) -> None:
    """Let the witness sign the forged commit (it keeps no memory in this test)."""
    log.cosign(newest(log))
