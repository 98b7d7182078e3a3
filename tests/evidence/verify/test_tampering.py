"""Every way of tampering with a store that we could think of: each is found, and named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import tampered_logs
import tampered_rows
from plain_store import (
    OWN,
    WITNESS,
    PlainLog,
    rich,
)
from tampering import CASES, Case

from evidence.verify import Finding, Report, verify

CASES_FROM = (tampered_rows, tampered_logs)
"""Their import registers the cases, in this order."""


def checked(root: Path, **more: Any) -> Report:
    """Check a store with the keys that its owner published."""
    return verify(root, [OWN.verifier], **({"witnesses": [WITNESS.verifier], "pause_s": 0, "jobs": 1} | more))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> PlainLog:
    """Give a good store, which stays as it is."""
    return rich(tmp_path_factory.mktemp("pristine") / "store")[0]


@pytest.fixture
def log(pristine: PlainLog, tmp_path: Path) -> PlainLog:
    """Give a copy of the good store, to be tampered with."""
    shutil.copytree(pristine.root, tmp_path / "store")
    return pristine.moved(tmp_path / "store")


def test_a_good_store_passes(pristine: PlainLog) -> None:
    """The store that every case begins with has nothing wrong, so that each finding is the tampering's."""
    report = checked(pristine.root)
    assert report.ok, report.to_text()
    assert report.rows == 340


def test_there_are_at_least_forty_ways() -> None:
    """The suite is as large as was promised, and no name stands twice."""
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tampering_is_found_and_named(case: Case, log: PlainLog) -> None:
    """The tampering is a finding of its own kind, in words that name it, and the store is not in order."""
    report = checked(log.root, **(case.act(log) or {}))
    assert not report.ok
    found: list[Finding] = [*report.findings, *report.losses]
    assert any(item.kind == case.kind and case.says in item.what for item in found), report.to_text()
