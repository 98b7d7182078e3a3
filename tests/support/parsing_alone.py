"""Python source is parsed without the garbage collector, on the versions of Python where the two do not go together.

Before 3.11.8 Python counts the depth of a syntax tree in one place for all trees under construction. Where the
collector runs amid one and ends in code that parses too - a traceback is told, for instance - the first parsing fails
with `SystemError: AST constructor recursion depth mismatch`, and pytest with it (python/cpython#106905).
"""

from __future__ import annotations

import ast
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any, Final

NEEDED: Final = (3, 11) <= sys.version_info < (3, 11, 8)
"""Whether this Python has the fault."""


def uncollected(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function that parses as `parse` does, and meanwhile nothing is collected."""

    @functools.wraps(parse)
    def parsed(*arguments: Any, **options: Any) -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            return parse(*arguments, **options)
        finally:
            if collects:
                gc.enable()

    return parsed


if NEEDED:
    ast.parse = uncollected(ast.parse)
