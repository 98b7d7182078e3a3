"""The program: its commands, and what their errors become.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 130 stopped by Ctrl-C, 141 where nobody reads the output any
more. An error is one sentence on standard error; `--debug` before the command shows the traceback too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from evidence.errors import ConfigError, WaybillError
from evidence.visible import visible, visible_line
from queries.errors import OutputClosed
from waybill.cli import (
    approvals,
    ask,
    consent,
    consistency,
    contracts,
    decide,
    decisions,
    dev,
    doctor,
    erase,
    evidence,
    export,
    hold,
    identity,
    policy,
    prove,
    receipt,
    replay,
    retention,
    reveal,
    send,
    site,
    standin,
    topics,
    trace,
    vault,
    verify,
    worker,
)
from waybill.cli.interrupts import Ended
from waybill.cli.options import RENAMED

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
CLOSED: Final = 141

app = typer.Typer(
    name="waybill",
    help="Carries AI requests across the boundary between local and hosted models, and can say afterwards what left.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: RENAMED.get(name, name),
    },
)
_debug = False


def _show_version(asked: bool) -> None:  # noqa: FBT001 - the form of a Typer callback
    if asked:
        typer.echo(f"waybill {version('waybill-runtime')}")
        raise typer.Exit


@app.callback()
def program(
    show: Annotated[  # noqa: ARG001, FBT002 - a flag, whose callback does the work
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Options that stand before the command."""
    global _debug  # noqa: PLW0603 - the one switch that outlives the parsing
    _debug = debug
    if debug:
        logging.basicConfig(level=logging.INFO)
    else:
        # What fails is raised and told in one sentence; the Kafka client would say it a second time, in its own words.
        logging.getLogger().addHandler(logging.NullHandler())


def _register(panel: str, *commands: Callable[..., Any]) -> None:
    for command in commands:
        app.command(rich_help_panel=panel)(command)


_register("Run", dev.dev, worker.worker)
app.command("stand-in", rich_help_panel="Run")(standin.stand_in)
_register("Send and follow", send.send, receipt.receipt, trace.trace, reveal.reveal)
_register("Ask the evidence", ask.sql, ask.ask)
_register("Prove it", verify.verify, prove.prove, consistency.consistency)
app.add_typer(evidence.app, name="evidence", rich_help_panel="Prove it")
_register("Look after it", doctor.doctor)
_GOVERN: Final = "Govern it"
_register(_GOVERN, decide.decide, replay.replay, erase.erase, export.export)
app.add_typer(policy.app, name="policy", rich_help_panel=_GOVERN)
app.add_typer(decisions.app, name="decisions", rich_help_panel=_GOVERN)
app.add_typer(contracts.app, name="contracts", rich_help_panel=_GOVERN)
app.add_typer(consent.app, name="consent", rich_help_panel=_GOVERN)
app.add_typer(approvals.app, name="approvals", rich_help_panel=_GOVERN)
app.add_typer(hold.app, name="hold", rich_help_panel=_GOVERN)
app.add_typer(retention.app, name="retention", rich_help_panel=_GOVERN)
app.add_typer(vault.app, name="vault", rich_help_panel=_GOVERN)
app.add_typer(identity.app, name="identity", rich_help_panel=_GOVERN)
app.add_typer(site.app, name="site", rich_help_panel="Look after it")
app.add_typer(topics.app, name="topics", rich_help_panel="Look after it")


def run(argv: list[str] | None = None) -> int:
    """Run a command; return the exit code.

    Args:
        argv: the arguments; the process's own if None.
    """
    try:
        return _finished(_run(sys.argv[1:] if argv is None else argv))
    except OutputClosed:
        return _unread()


def _run(argv: list[str]) -> int:
    try:
        result = app(args=_arguments(argv), standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except (KeyboardInterrupt, typer.Abort, asyncio.CancelledError):
        _say("stopped")
        return INTERRUPTED
    except Ended as end:
        return int(end.code or 0)
    except SystemExit:  # the parser's own end where nobody reads its help any more
        return _unread()
    except OutputClosed:
        raise
    except WaybillError as error:
        return _told(error)
    except BaseExceptionGroup as group:
        return _told_first(group)
    except OSError as error:
        return _system(error)
    except Exception as error:  # noqa: BLE001 - the last place where an error can be told
        return _usage(error) if _is_usage(error) else _fault(error)
    return result if isinstance(result, int) else 0


def _arguments(argv: list[str]) -> list[str]:
    """Return the arguments as the parser takes them.

    A query may begin with a comment, which is no option: no option has a blank before its value.

    Raises:
        ConfigError: one is not text.
    """
    for place, text in enumerate(argv, start=1):
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ConfigError(f"argument {place} is not {sys.getfilesystemencoding()}: {visible_line(text[:80])}")
    if "sql" not in argv:
        return argv
    begin = argv.index("sql") + 1
    return argv[:begin] + [f" {text}" if _COMMENT.match(text) else text for text in argv[begin:]]


_COMMENT: Final = re.compile(r"--(?:[^=\s]*[\s]|[^\n]*\n)")


def _finished(code: int) -> int:
    """Write out what is left to be written, and return the exit code; at the end Python would tell in its own words."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosed("nobody reads the output any more") from None
    except (OSError, ValueError) as error:
        _discard()
        if code == 0:
            _say(f"standard output cannot be written: {getattr(error, 'strerror', None) or error}")
        return code or FAILED
    return code


def _unread() -> int:
    """End where the reader has gone: nobody is left to tell."""
    _discard()
    return CLOSED


def _discard() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"waybill: {visible(text)}", file=sys.stderr)  # noqa: T201 - where a program says why it ends


def _told(error: WaybillError) -> int:
    if _debug:
        traceback.print_exception(error)
    _say(str(error))
    return USAGE if isinstance(error, ConfigError) else FAILED


def _told_first(group: BaseExceptionGroup[BaseException]) -> int:
    """Tell the first error of ours of those that parts of a run raised together."""
    flat = list(_leaves(group))
    if any(isinstance(error, OutputClosed) for error in flat):
        return _unread()
    ours = [error for error in flat if isinstance(error, WaybillError)]
    if len(ours) == len(flat):
        return _told(next((error for error in ours if isinstance(error, ConfigError)), ours[0]))
    if all(isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)) for error in flat):
        return INTERRUPTED
    return _fault(next(error for error in flat if not isinstance(error, WaybillError)))


def _system(error: OSError) -> int:
    """Tell what the system refused: a folder that cannot be made, a disk that is full."""
    if _debug:
        traceback.print_exception(error)
    what = error.filename if error.filename is not None else ""
    name = what.decode(errors="surrogateescape") if isinstance(what, bytes) else str(what)
    _say(f"{name}: {error.strerror or error}" if name else f"{error.strerror or error}")
    return FAILED


def _fault(error: BaseException) -> int:
    """Tell what only a fault of the program itself can be."""
    if _debug:
        traceback.print_exception(error)
    place = next(reversed(traceback.extract_tb(error.__traceback__)), None)
    where = f" at {Path(place.filename).name}:{place.lineno}" if place else ""
    _say(f"a fault of this program: {type(error).__name__}: {error}{where}; `waybill --debug ...` shows all of it")
    return FAILED


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _is_usage(error: Exception) -> bool:
    # Typer brings its own copy of click, whose errors are told by what they can do.
    return hasattr(error, "format_message") and hasattr(error, "show") and hasattr(error, "exit_code")


def _usage(error: Any) -> int:
    error.message = visible(error.message)
    error.show()
    return int(error.exit_code)
