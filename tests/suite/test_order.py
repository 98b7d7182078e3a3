"""The order of the suite: what takes long begins first, so that no worker is left alone with it."""

from __future__ import annotations

from types import SimpleNamespace

from running_order import LONG, ROOT, in_order


def item(path: str, name: str = "test_x") -> SimpleNamespace:
    """Give what the order looks at of a test."""
    return SimpleNamespace(path=ROOT / path, name=name)


def test_long_files_come_first_and_the_rest_stays_as_it_was():
    """Long files come in the order of the list; all others keep theirs, and so do the tests of one file."""
    others = [item("tests/queries/test_named.py", "b"), item("tests/policy/test_vault.py"), item("tests/a/test_b.py")]
    long = [item(f"tests/{LONG[1]}", "z"), item(f"tests/{LONG[0]}"), item(f"tests/{LONG[1]}", "a")]
    given = [others[0], long[0], others[1], long[1], long[2], others[2]]
    assert in_order(given) == [long[1], long[0], long[2], *others]


def test_each_long_file_is_there():
    """The list names files of this suite, each once."""
    assert [name for name in LONG if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(LONG)) == len(LONG)
