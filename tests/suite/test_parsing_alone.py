"""The suite parses source while nothing is collected: what ends in the collector may parse too."""

from __future__ import annotations

import ast
import gc

import pytest
from parsing_alone import NEEDED, uncollected

SOURCE = f"x = [{','.join(f'(a{number}, [b, {{c: d}}])' for number in range(2_000))}]"
"""So much that the collector runs while it is parsed, were it allowed to."""


class Parsing:
    """Something in a cycle, whose end parses, as the telling of a traceback does."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        ast.parse("f((1 + (2 + (3))))")


@pytest.fixture
def often():
    """Let the collector run often."""
    before = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("often")
def test_what_ends_meanwhile_may_parse_too():
    """With things that parse as they end about to be collected, source is parsed, and the collector is on again."""
    parse = uncollected(ast.parse)
    for _ in range(10):
        for _ in range(20):
            Parsing()
        assert len(parse(SOURCE).body[0].value.elts) == 2_000
    assert gc.isenabled()


@pytest.mark.skipif(not NEEDED, reason="this Python does not have the fault")
def test_the_whole_suite_parses_so():
    """Where Python has the fault, `ast.parse` itself is the one that collects nothing."""
    assert hasattr(ast.parse, "__wrapped__")
