"""`python -m evidence.verify STORE --key KEY`: checks an evidence store with nothing but its files and a public key."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from evidence.verify.check import OPEN_AFTER, Progress, UsageError, verify
from evidence.verify.notes import NoteError
from evidence.verify.pack import verify_pack

_EVERY_S: Final = 0.2
_MOST: Final = 100_000
_LONGEST_S: Final = 1e10
_DESCRIPTION: Final = """\
Checks an evidence store against its signed commits, with nothing but the store's files and a public key.
Every row is hashed anew, every root, tile, file, signature and story is compared.
Exit code 0: all is as it must be. 1: something is wrong; the first line names the first bad thing. 2: wrong usage."""
_EPILOG: Final = """\
A key may also be given as @FILE, a file that holds one. Any key that ever signed the log will do: the checker
follows the changes of keys from it.

example: python -m evidence.verify /var/lib/waybill/evidence --key waybill/home+3f2a9c01+AbCd… --max-age 3600"""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; gives its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.pack:
        return _pack(options)
    if not options.store:
        parser.error("name a STORE, or a pack with --pack FILE")
    bar = _Bar(show=not options.no_progress and sys.stderr.isatty())
    try:
        report = verify(
            options.store,
            [_key(text) for text in options.key],
            witnesses=[_key(text) for text in options.witness],
            since=Path(options.since).read_bytes() if options.since else None,
            since_name=options.since or "",
            max_age=timedelta(seconds=options.max_age) if options.max_age is not None else None,
            partitions=options.partitions,
            accept_loss=options.accept_loss,
            open_after=timedelta(seconds=options.open_after),
            jobs=options.jobs,
            progress=bar.tell,
        )
    except (UsageError, OSError, UnicodeDecodeError) as error:
        bar.clear()
        sys.stderr.write(f"evidence.verify: {error}\n")
        return 2
    except KeyboardInterrupt:
        bar.clear()
        sys.stderr.write("evidence.verify: interrupted; nothing was decided\n")
        return 130
    bar.clear()
    sys.stdout.write((report.to_json() if options.json else report.to_text(options.most)) + "\n")
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m evidence.verify",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("store", metavar="STORE", nargs="?", help="the evidence store's folder")
    add("--pack", metavar="FILE", help="check a proof pack of one request instead of a store")
    add("--unsigned", action="store_true", help="a pack without a signature will do; its rows need none")
    add("--key", metavar="VKEY", action="append", required=True, help="a verifier key of the log; may be repeated")
    add(
        "--witness",
        metavar="VKEY",
        action="append",
        default=[],
        help="a witness's verifier key; the newest commit of each log must bear its cosignature",
    )
    add(
        "--since",
        metavar="NOTEFILE",
        action=_Once,
        help="a commit or checkpoint that you kept: the store must still contain it",
    )
    add("--max-age", metavar="SECONDS", type=_seconds, help="how old the newest commit of a log may be")
    add("--partitions", metavar="N", type=_count, help="how many partitions each topic has, whatever the commits say")
    add(
        "--open-after",
        metavar="SECONDS",
        type=_seconds,
        default=OPEN_AFTER.total_seconds(),
        help="how long behind its deadline a request may be without its end (default: %(default)g)",
    )
    add("--accept-loss", action="store_true", help="offsets that are said to be lost are in order")
    add("--jobs", metavar="N", type=_count, help="worker processes (default: the machine's cores)")
    add("--most", metavar="N", type=_count, default=20, help="list at most so many findings (default: %(default)s)")
    add("--json", action="store_true", help="give the report as JSON")
    add("--no-progress", action="store_true", help="show no progress on the terminal")
    return parser


def _pack(options: argparse.Namespace) -> int:
    """Check a pack."""
    try:
        keys, witnesses = [_key(text) for text in options.key], [_key(text) for text in options.witness]
        report = verify_pack(Path(options.pack).read_bytes(), keys, witnesses, unsigned=options.unsigned)
    except (NoteError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"evidence.verify: {error}\n")
        return 2
    sys.stdout.write((report.to_json() if options.json else report.to_text()) + "\n")
    return 0 if report.ok else 1


class _Once(argparse.Action):
    """An option that may stand once: of several, all but one would be forgotten."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Take the value, or refuse a second one."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} takes one checkpoint: check once for each")
        setattr(namespace, self.dest, values)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError("a number from 1 to 100,000 is needed")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= _LONGEST_S:
        raise argparse.ArgumentTypeError("seconds, from 0 on, are needed")
    return number


def _key(text: str) -> str:
    return Path(text[1:]).read_text("utf-8").strip() if text.startswith("@") else text


class _Bar:
    """The line on the terminal that tells how far the check is."""

    def __init__(self, *, show: bool) -> None:
        self.show = show
        self.begun = self.told = 0.0

    def tell(self, progress: Progress) -> None:
        """Write the line anew, a few times a second."""
        now = time.monotonic()
        if not self.show or now - self.told < _EVERY_S:
            return
        self.told = now
        if progress.phase != "rows":
            sys.stderr.write(f"\r\x1b[Kreading {progress.phase} …")
        else:
            self.begun = self.begun or now
            rate = progress.rows / (now - self.begun) if now > self.begun else 0.0
            left = f", {(progress.total - progress.rows) / rate:,.0f} s left" if rate else ""
            sys.stderr.write(f"\r\x1b[K{progress.rows:,} of {progress.total:,} rows, {rate:,.0f} rows/s{left}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self.show:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
