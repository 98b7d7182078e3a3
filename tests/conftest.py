"""What every test may ask for: brokers and servers, each started when the first test asks and shared by the session."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import parsing_alone  # noqa: F401 - it acts as it is loaded
import pytest
from hypothesis import settings
from running_order import in_order

pytest_plugins = ["kafka_fixtures", "prometheus_fixtures", "s3_fixtures", "triton_fixtures", "unclosed"]

MEMORY = Path("/dev/shm")  # noqa: S108 - the machine's own name for files in memory
ENOUGH = 4 << 30
"""Bytes that must be free there."""

# An example takes longer on a busy machine, and nothing is wrong: how long examples take is no fact that they prove.
# `make fuzz` has its own profile, of many more.
settings.register_profile("ordinary", max_examples=25, deadline=None)
if settings.get_current_profile_name() != "fuzz":
    settings.load_profile("ordinary")


def pytest_configure() -> None:
    """Let the folders of tests lie in memory where there is room: much of the time went to waiting for the disk."""
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH
    if usable and "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, behind whatever else has ordered them."""
    items[:] = in_order(items)
