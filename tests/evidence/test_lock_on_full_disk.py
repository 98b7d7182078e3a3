"""A lock on a disk that takes no byte is taken and given back like any other."""

from __future__ import annotations

import resource

import pytest

from evidence.disk import Lock, PartitionHeld


def test_a_lock_is_taken_and_given_back_where_nothing_can_be_written(tmp_path):
    """Its holder cannot write its number into it; it holds all the same, and nobody holds it afterwards."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        lock = Lock(tmp_path / "lock", wait_s=0)
        with pytest.raises(PartitionHeld, match="unknown"):
            Lock(tmp_path / "lock", wait_s=0)
        lock.release()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    Lock(tmp_path / "lock", wait_s=0).release()
    assert int((tmp_path / "lock").read_text()) > 0
