"""Fails the test that leaves something open, and no later one.

A socket, a file or a coroutine that is part of a cycle ends when the garbage collector runs next, often amid another
test, and its warning, which is an error here, would fail that one. So the collector runs at the end of each test and of
each module. It looks only at what was made in this module: to look at all that is in memory would take a tenth of a
second each time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


def pytest_collection_finish() -> None:
    """Leave what exists before the first test out of all collections."""
    _set_aside()


def _set_aside() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _module_closes_what_it_opens() -> Iterator[None]:
    yield
    _set_aside()


@pytest.fixture(autouse=True)
def _test_closes_what_it_opens(request: pytest.FixtureRequest, _module_closes_what_it_opens: None) -> Iterator[None]:
    yield
    request.node.funcargs.clear()  # else the last test of a module holds what the module's fixtures gave
    gc.collect()


def pytest_unconfigure() -> None:
    """Let the interpreter end as it does without this."""
    gc.unfreeze()
