"""The command line."""

from __future__ import annotations

import sys

from waybill.cli.interrupts import end_at_once, end_quietly, listen


def main(argv: list[str] | None = None) -> int:
    """Run a command; give the exit code. `argv` are the arguments; the process's own if None."""
    end_quietly()
    if "worker" in (sys.argv[1:] if argv is None else argv):
        end_at_once()
    try:
        from waybill.cli.program import run  # noqa: PLC0415 - loading it takes a moment, and parts are used without it

        return run(argv)
    finally:
        listen()
