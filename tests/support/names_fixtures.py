"""Whether the names model's environment is there, for tests that need the real model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policy.detection.names import Limits, missing

PATIENT = Limits(timeout_s=60)
"""For tests of what the model finds: how soon it answers is no fact that they prove, and the machine may be busy."""
PYTHON = Path(__file__).resolve().parents[2] / ".venv-names" / "bin" / "python"


def need_names() -> None:
    """Skip the test, with the reason, where the environment is missing; with `CI=true` that is a failure."""
    reason = missing(PYTHON)
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the tests of names: {reason}", pytrace=False)
    pytest.skip(reason)
