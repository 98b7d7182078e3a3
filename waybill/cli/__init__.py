"""The command line."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run a command; give the exit code. `argv` are the arguments; the process's own if None."""
    try:
        from waybill.cli.program import run  # noqa: PLC0415 - parts of this package are used without the program
    except KeyboardInterrupt:
        sys.stderr.write("waybill: stopped\n")
        return 130
    return run(argv)
