"""No change to a covered byte goes unnoticed, and nothing that a file holds makes the checker fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_store import NEXT, OWN, WITNESS, PlainLog, stories

from evidence.verify import Report, verify

EXAMPLES: Final = 60 if settings().max_examples < 5_000 else 10_000
"""A normal run takes a few; the profile of `make fuzz` many."""

Change = Callable[[bytes, int, int], bytes]


@dataclass(frozen=True)
class Store:
    """A small store and what lies in it."""

    root: Path
    files: list[Path]
    needed: list[Path]
    """Those that must be there."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Give a small store that has a file of each kind."""
    root = tmp_path_factory.mktemp("mutations") / "store"
    log = PlainLog(root)
    log.open()
    log.append(stories(0, 65))
    log.append(stories(65, 2))
    log.compact(list(log.live.values()), delete=False)
    log.say(key=NEXT)
    log.append(stories(67, 1), log.statement({"why": "a trial"}))
    log.pack(0, 1)
    double = log.pack(2, 3, keep=True)
    log.snapshot()
    log.cosign(len(log.commits) - 1)
    report = check(root)
    assert report.ok, report.to_text()
    files = sorted(path for path in root.rglob("*") if path.is_file())
    live = {root / path for path in log.live}
    spare = {path for path in root.glob("events/**/*.parquet") if path not in live}
    spare |= {double, log.commit_path(2), log.commit_path(3), *root.glob("logs/*/live/*")}
    return Store(root, files, [path for path in files if path not in spare])


def check(root: Path) -> Report:
    """Check the store as its owner would."""
    return verify(root, [OWN.verifier], witnesses=[WITNESS.verifier], pause_s=0, jobs=1)


def flip(data: bytes, at: int, by: int) -> bytes:
    """Change one byte."""
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


def insert(data: bytes, at: int, by: int) -> bytes:
    """Put a byte in."""
    return data[:at] + bytes([by]) + data[at:]


def delete(data: bytes, at: int, by: int) -> bytes:
    """Take a byte out."""
    return data[:at] + data[at + 1 :]


def truncate(data: bytes, at: int, by: int) -> bytes:
    """Cut the end off."""
    return data[:at]


def swap(data: bytes, at: int, by: int) -> bytes:
    """Exchange two bytes."""
    other = (at + by) % len(data)
    low, high = sorted((at, other))
    if low == high:
        return data
    return data[:low] + data[high : high + 1] + data[low + 1 : high] + data[low : low + 1] + data[high + 1 :]


def append(data: bytes, at: int, by: int) -> bytes:
    """Put some of the file behind its end."""
    return data + data[at:]


def means_the_same(path: Path, one: bytes, other: bytes) -> bool:
    """Tell whether a change is none: a snapshot is JSON, in which blanks and the writer's own memory prove nothing."""
    if path.parent.name != "live":
        return False
    try:
        documents = [json.loads(data) for data in (one, other)]
    except ValueError:
        return False
    return all(document.pop("removed", None) is not None for document in documents) and documents[0] == documents[1]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.integers(0, 10_000),
    at=st.integers(0, 1_000_000),
    by=st.integers(1, 255),
    change=st.sampled_from([flip, insert, delete, truncate, swap, append]),
)
def test_any_change_to_a_byte_is_found(store: Store, file: int, at: int, by: int, change: Change) -> None:
    """A byte changed, put in, taken out, cut off, exchanged or added in any file is a finding, never an exception."""
    path = store.files[file % len(store.files)]
    data = path.read_bytes()
    changed = change(data, at % len(data), by)
    path.write_bytes(changed)
    try:
        report = check(store.root)
    finally:
        path.write_bytes(data)
    assert not report.ok or changed == data or means_the_same(path, data, changed), f"{change.__name__} in {path}"
    assert report.to_text()
    assert json.loads(report.to_json())["ok"] == report.ok


@settings(
    max_examples=max(20, EXAMPLES // 10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    one=st.integers(0, 10_000), other=st.integers(0, 10_000), act=st.sampled_from(["swap", "remove", "copy", "move"])
)
def test_any_change_to_the_set_of_files_is_found(store: Store, one: int, other: int, act: str) -> None:
    """A needed file that is removed, renamed, copied over another or exchanged with it is a finding."""
    path = store.needed[one % len(store.needed)]
    second = store.needed[other % len(store.needed)]
    data, more = path.read_bytes(), second.read_bytes()
    moved = path.with_name("x" + path.name)
    try:
        if act == "swap":
            path.write_bytes(more)
            second.write_bytes(data)
        elif act == "remove":
            path.unlink()
        elif act == "copy":
            path.write_bytes(more)
        else:
            path.rename(moved)
        report = check(store.root)
    finally:
        moved.unlink(missing_ok=True)
        second.write_bytes(more)
        path.write_bytes(data)
    assert not report.ok or (act in {"swap", "copy"} and data == more), f"{act} {path}"
    assert report.to_text()


@settings(
    max_examples=max(20, EXAMPLES // 10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(file=st.integers(0, 10_000), data=st.binary(max_size=300))
def test_any_bytes_at_all_are_a_finding(store: Store, file: int, data: bytes) -> None:
    """Arbitrary bytes in any file's place are a finding, never an exception."""
    path = store.needed[file % len(store.needed)]
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        report = check(store.root)
    finally:
        path.write_bytes(before)
    assert not report.ok
