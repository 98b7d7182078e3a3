"""Run the stand-in as a program: `python -m inference.standin --host 127.0.0.1 --port 8089 [--script FILE.json]`.

Its first line on standard output is its base URL, once it listens. SIGINT and SIGTERM stop it. Exit codes: 0 stopped as
asked, 2 a flag or the script is wrong, or the port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from evidence.errors import ConfigError
from inference.standin.script import Script
from inference.standin.server import StandIn
from policy.files import read_text
from policy.identity.jwks import KeySet

if sys.platform == "win32":
    from asyncio import run
else:
    from uvloop import run


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m inference.standin",
        description="Stands in for a hosted, OpenAI-compatible provider. No model runs; everything it serves says so.",
        epilog="example: python -m inference.standin --port 8089 --script faults.json --log calls.jsonl",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="TCP port (default: a free one, see the first line)")
    parser.add_argument("--script", type=Path, help="rules as JSON: what to do with which request")
    parser.add_argument("--log", type=Path, help="append each call to this file as a JSON line")
    parser.add_argument("--keep-calls", type=int, default=100_000, help="calls kept in memory (default: %(default)s)")
    parser.add_argument("--keep-prompts", action="store_true", help="keep whole request bodies too (for leak tests)")
    parser.add_argument("--jwks", type=Path, help="ask each call for a token signed with one of these public keys")
    parser.add_argument("--audience", default="", help="what such a token has to name (with --jwks)")
    return parser.parse_args(argv)


async def _serve(args: argparse.Namespace) -> None:
    stand_in = StandIn(
        Script.load(args.script) if args.script else None,
        host=args.host,
        port=args.port,
        log_path=args.log,
        keep_prompts=args.keep_prompts,
        keep_calls=args.keep_calls,
        token_keys=KeySet.parse(read_text(args.jwks, "JWKS"), str(args.jwks)) if args.jwks else None,
        audience=args.audience,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    try:
        print(await stand_in.start(), flush=True)  # noqa: T201 - the program's one line of output
        await stop.wait()
    finally:
        await stand_in.stop()


def main(argv: list[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's); returns the exit code."""
    args = _arguments(sys.argv[1:] if argv is None else argv)
    try:
        run(_serve(args))
    except ConfigError as exc:
        print(f"stand-in: {exc}", file=sys.stderr)  # noqa: T201 - where a program says why it does not start
        return 2
    except KeyboardInterrupt:  # only where signals have no handlers of ours
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
