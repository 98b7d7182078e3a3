"""The command line."""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Run a command; give the exit code. `argv` are the arguments; the process's own if None."""
    from waybill.cli.program import main as run  # noqa: PLC0415 - parts of this package are used without the program

    return run(argv)
