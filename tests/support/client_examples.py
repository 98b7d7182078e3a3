"""The programs of `docs/examples`, with the libraries that they need: fetched once, into the project's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
CACHE = ROOT / ".cache" / "examples"
LANGUAGES = ("python", "node", "java")
_FETCH_S = 300
_RUN_S = 120


def argv(language: str) -> list[str]:
    """Give the command that runs the example of a language; its argument is the file with the request."""
    if language == "python":
        return [sys.executable, str(EXAMPLES / "ask.py")]
    if language == "node":
        _need("node", "nodejs")
        return ["node", str(_fetched("node", ["npm", "install", "--no-audit", "--no-fund"]) / "ask.mjs")]
    _need("javac", "openjdk-17-jdk-headless")
    folder = _fetched("java", ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"])
    return ["java", "-cp", f"{folder}/lib/*", str(folder / "Ask.java")]


def ask(language: str, kafka: str, request: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the example of a language on a request."""
    path = folder / f"{language}.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    return subprocess.run(
        [*argv(language), str(path)],
        # Java would say that it has read the options that the test run sets for its brokers.
        env={name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"} | {"KAFKA": kafka},
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )


def _fetched(name: str, fetch: list[str]) -> Path:
    """Give a folder with the example and its libraries; a changed example gets a new one."""
    _need(fetch[0], {"npm": "npm", "mvn": "maven"}[fetch[0]])
    files = sorted((EXAMPLES / name).iterdir())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(prefix="fetching-", dir=CACHE))
    for file in files:
        shutil.copy(file, fresh)
    done = subprocess.run(fetch, cwd=fresh, capture_output=True, text=True, timeout=_FETCH_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        fresh.rename(folder)
    except OSError:  # another process was faster, and its libraries are the same
        shutil.rmtree(fresh)
    return folder


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        told = f"there is no program {program}: install the Debian package {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
