"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer
from rich.console import Console

if TYPE_CHECKING:
    from waybill.settings import Settings

Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Folder that holds all that a run writes (default: ./.waybill)."),
]
Kafka = Annotated[
    str | None,
    typer.Option(
        "--kafka", metavar="HOST:PORT", help="The broker (default: that of a running `waybill dev`, or 127.0.0.1:9092)."
    ),
]

_FILE_WIDTH: Final = 160
"""Columns where there is no terminal whose width could be asked for."""


def _console(stream: TextIO, *, stderr: bool = False) -> Console:
    width = None if stream.isatty() else _FILE_WIDTH
    return Console(stderr=stderr, highlight=False, emoji=False, width=width)


out = _console(sys.stdout)
"""What a command is asked for."""

err = _console(sys.stderr, stderr=True)
"""What a command says about its work."""


def resolve(*, home: Path | None = None, kafka: str | None = None, **flags: Any) -> Settings:
    """Give the settings of a command: flags, then the environment, then what a `waybill dev` that runs here says.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    from waybill import dev_run  # noqa: PLC0415 - `--help` needs none of it
    from waybill.settings import load  # noqa: PLC0415 - the same

    settings = load(home=home, kafka=kafka, **flags)
    elsewhere = settings.kafka if "kafka" in settings.model_fields_set else None
    run = dev_run.read(settings.home)
    if elsewhere is not None and (run is None or run.kafka != elsewhere):
        return settings
    if run is None:
        if dev_run.stale(settings.home):
            tell(f"waybill: {settings.home / dev_run.FILE} is of a run that has ended, and is not used")
        return settings
    given = settings.model_fields_set - {"kafka"}  # the same one, where it is given
    known = {"kafka": run.kafka, "kafka_prefix": run.kafka_prefix, "log_id": run.log_id, "web_port": run.web_port}
    more = {name: value for name, value in known.items() if name not in given}
    endpoints = {name: place.model_dump() for name, place in run.endpoints.items() if name not in settings.endpoints}
    return load(home=home, **{**flags, **more, "endpoints": endpoints})


def tell(message: str) -> None:
    """Say something about the work, in one line that no terminal breaks."""
    err.print(message, markup=False, soft_wrap=True)


def command(text: str, home: Path) -> str:
    """Give a command of this program as a user can type it here: its path where needed, and the home."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "waybill" and which("waybill") is None else "waybill"
    flag = "" if home.absolute() == Path(".waybill").absolute() else f" --home {shlex.quote(str(home))}"
    return f"{program} {text}{flag}"
