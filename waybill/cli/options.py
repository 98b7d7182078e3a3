"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from evidence.errors import ConfigError
from evidence.visible import safe_json
from queries.terminal import Terminal, data

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

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="KIND:NAME", help="Who does it (default: user:NAME, with the name you logged in by)."),
]

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
"""A host, with a port or without; what is none ends deep in the network library."""

RENAMED: Final = {"as": "by", "actor": "by"}
"""Options by the names that they had; what was typed once still works, and no help shows it."""

out = Terminal("stdout")
"""Results."""

err = Terminal("stderr")
"""Progress and diagnostics."""


def write_json(value: Any, *, indent: bool = True) -> None:
    """Write a value as one JSON document, exactly, whatever the width of a terminal."""
    write_json_text(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode())


def write_json_text(text: str) -> None:
    """Write what is JSON already."""
    ascii_only = not out.encoding.lower().startswith("utf")
    data(out, iter([safe_json(text, ascii_only=ascii_only) + "\n"]), what="JSON")


def resolve(*, home: Path | None = None, kafka: str | None = None, **flags: Any) -> Settings:
    """Give the settings of a command: flags, then the environment, then what a `waybill dev` that runs here says.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    from waybill import dev_run  # noqa: PLC0415 - `--help` needs none of it
    from waybill.settings import load  # noqa: PLC0415 - the same

    settings = load(home=home, kafka=kafka, **flags)
    if not all(_ADDRESS.fullmatch(each.strip()) for each in settings.kafka.split(",")):
        raise ConfigError(f"--kafka: {settings.kafka!r} is not HOST:PORT")
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
    err.print(message, soft_wrap=True)


def command(text: str, home: Path) -> str:
    """Give a command of this program as a user can type it here: its path where needed, and the home."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "waybill" and which("waybill") is None else "waybill"
    flag = "" if home.absolute() == Path(".waybill").absolute() else f" --home {shlex.quote(str(home))}"
    return f"{program} {text}{flag}"
