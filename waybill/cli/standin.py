"""`waybill stand-in`: a real HTTP server that stands in for a hosted provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def stand_in(
    port: Annotated[int, typer.Option(metavar="N", help="TCP port; 0 takes a free one.")] = 8089,
    script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules: what to do with which request (config/standin.json).")
    ] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Append each call to this file.")] = None,
    jwks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer only calls with a token that one of these keys signed.")
    ] = None,
    audience: Annotated[str, typer.Option(metavar="NAME", help="For whom such a token must be.")] = "",
) -> int:
    """Run a stand-in for a hosted, OpenAI-compatible provider. No model runs, and everything it serves says so.

    Example: `waybill stand-in --port 8089 --script config/standin.json`
    """
    from inference.standin.__main__ import main  # noqa: PLC0415 - `--help` needs none of it

    argv = ["--port", str(port)]
    if script is not None:
        argv += ["--script", str(script)]
    if log is not None:
        argv += ["--log", str(log)]
    if jwks is not None:
        argv += ["--jwks", str(jwks), "--audience", audience]
    return main(argv)
