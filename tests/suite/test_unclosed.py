"""A test that leaves something open fails itself: the next one does not, and neither does one of another file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[1] / "support"

OF_A_TEST = """
import socket

def test_opens():
    held = [socket.socket()]
    held.append(held)

def test_is_innocent():
    pass
"""

OF_A_MODULE = """
import socket
import pytest

@pytest.fixture(scope="module")
def opened():
    held = [socket.socket()]
    held.append(held)
    return held

def test_is_first(opened):
    pass

def test_opens(opened):
    pass
"""


@pytest.mark.parametrize("content", [OF_A_TEST, OF_A_MODULE], ids=["test", "module"])
def test_the_test_that_opens_fails_and_its_neighbours_do_not(tmp_path, content):
    """A socket in a cycle, which only the collector ends, is an error of the test or module that opened it."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    (tmp_path / "test_a.py").write_text(content, encoding="utf-8")
    (tmp_path / "test_b.py").write_text("def test_is_elsewhere():\n    pass\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "unclosed", "-p", "no:randomly", "-p", "no:asyncio", "-rA"],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "PYTEST_ADDOPTS": ""},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    failed = re.findall(r"^(?:ERROR|FAILED) (\S+)", done.stdout, flags=re.MULTILINE)
    assert failed == ["test_a.py::test_opens"], done.stdout
    assert done.returncode == 1
    assert "unclosed <socket.socket" in done.stdout
