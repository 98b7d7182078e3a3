"""The project speaks of itself alone."""

from __future__ import annotations

import re
import subprocess
import tomllib

from doc_pages import ROOT

MACHINE = re.compile(r"(?<![\w.-])/(?:work|root|home/\w+|tmp/\w+)/[\w.-]+")
"""A path of one machine; what is in a program's temporary folder is none."""

WRITTEN = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".jsonl", ".sql", ".sh", ".txt", ".lock", ""}


def texts() -> dict[str, str]:
    """Give every text file that belongs to the project, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    paths = [ROOT / name for name in listed if name]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in paths
        if path.is_file() and path.suffix in WRITTEN
    }


def test_no_text_names_a_machines_path():
    """Nothing depends on where somebody's files lie."""
    mine = "tests/docs/test_project_texts.py"
    found = {name: MACHINE.findall(text) for name, text in texts().items() if name != mine}
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_the_licence_is_the_one_that_is_named():
    """`LICENSE` is the whole text of the licence in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_changelog_has_a_head_for_what_comes():
    """What is not released yet has its place, above every version."""
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert heads[0] == "Unreleased"
