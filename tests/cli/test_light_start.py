"""A command whose help is asked for starts light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"aiohttp", "aiokafka", "cryptography", "duckdb", "grpc", "numpy", "pyarrow", "yaml"}
"""Libraries that no help needs; pydantic is not among them, because Typer itself reads flags with it."""

PROGRAM = """
import sys
from waybill.cli import main
code = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
raise SystemExit(code)
"""


@pytest.mark.parametrize("asked", [["--help"], ["--version"], ["worker", "--help"], ["export", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(asked):
    """Neither Kafka's client nor models nor tables are loaded to say what there is."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *asked], capture_output=True, text=True, timeout=120, check=True
    )
    assert "waybill" in done.stdout.lower()
    assert not HEAVY & set(done.stderr.split())
