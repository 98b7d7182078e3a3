"""`waybill identity`: keys for signing, the public set of them, and tokens for trying out."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.table import Table

from evidence.errors import ConfigError
from queries.terminal import Text
from waybill.cli.options import out, tell

app = typer.Typer(help="Keys and tokens: who asks, and who calls.", no_args_is_help=True)

_DURATION: Final = re.compile(r"(\d{1,6})([smh]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_TIMES: Final = ("exp", "iat", "nbf")

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A private key that `keygen` made.")]


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; a new file.")],
) -> None:
    """Make a private key (P-256, for ES256) that only its owner can read.

    Example: `waybill identity keygen signing.pem`
    """
    from policy.identity.jws import SigningKey  # noqa: PLC0415 - `--help` needs none of it

    key = SigningKey.generate()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{file} exists: a key is never written over; give another name") from error
    except OSError as error:
        raise ConfigError(f"cannot write the key {file}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as target:
        target.write(key.pem())
        target.flush()
        os.fsync(target.fileno())
    tell(
        f"waybill: wrote a private key to {file} (key id {key.kid}, which is public); "
        f"`waybill identity jwks {file}` prints its public part"
    )


@app.command()
def jwks(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Private keys.")]) -> None:
    """Print the public parts of private keys as a JWKS, which may be published.

    Example: `waybill identity jwks signing.pem > jwks.json`
    """
    from inference.credentials import load_signing_key  # noqa: PLC0415 - `--help` needs none of it
    from policy.identity.jws import public_set  # noqa: PLC0415 - the same

    keys = {key.kid: key for key in map(load_signing_key, files)}  # a key that is given twice is published once
    out.print(public_set(*keys.values()), end="", soft_wrap=True)


@app.command()
def token(
    key: KeyFile,
    sub: Annotated[str, typer.Option(metavar="ID", help="Who asks; the request's actor.")],
    tenant: Annotated[str, typer.Option(metavar="ID", help="For which tenant.")],
    issuer: Annotated[str, typer.Option(metavar="NAME", help="Who says so; the worker's identity_issuer.")],
    audience: Annotated[str, typer.Option(metavar="NAME", help="For whom; its identity_audience.")] = "waybill",
    kind: Annotated[Literal["user", "service"], typer.Option(help="A person or a program.")] = "user",
    role: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A role; may be given several times.")] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="ID", help="The one person whom the data may be about.")
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it holds: 90s, 15m or 12h.")] = "15m",
) -> None:
    """Print a signed token for trying out. In production the tokens come from your identity provider.

    Example: `waybill identity token signing.pem --sub ada --tenant acme --issuer https://id.example.org > token.jwt`
    """
    from inference.credentials import load_signing_key  # noqa: PLC0415 - `--help` needs none of it

    now = int(datetime.now(UTC).timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": sub,
        "aud": audience,
        "iat": now,
        "exp": now + _seconds(ttl),
        "tenant": tenant,
        "actor_kind": kind,
        "roles": role or [],
    }
    if subject is not None:
        claims["data_subject"] = subject
    out.print(load_signing_key(key).sign(claims), soft_wrap=True)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="TOKEN_FILE", help="A file with a token and nothing else.")],
    jwks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check the signature with these public keys.")
    ] = None,
) -> int:
    """Show what a token says, without its signature; exit code 1 where the signature does not hold.

    Example: `waybill identity show token.jwt --jwks jwks.json`
    """
    from evidence.errors import RecordError  # noqa: PLC0415 - `--help` needs none of it
    from policy.files import read_text  # noqa: PLC0415 - the same
    from policy.identity.jwks import KeySet  # noqa: PLC0415 - the same
    from policy.identity.jws import MAX_TOKEN, open_token, unchecked  # noqa: PLC0415 - the same

    text = read_text(file, "token").strip()
    text = text[len("bearer ") :] if text[: len("bearer ")].lower() == "bearer " else text
    if len(text) > MAX_TOKEN:
        raise ConfigError(f"{file}: longer than {MAX_TOKEN} characters, and so no token")
    verdict, code = Text("not checked (give --jwks)", "yellow"), 0
    try:
        said = unchecked(text)
        if jwks is not None:
            try:
                open_token(text, KeySet.parse(read_text(jwks, "JWKS"), str(jwks)))
                verdict = Text("holds", "green")
            except RecordError as error:
                verdict, code = Text(str(error), "red"), 1
    except RecordError as error:
        raise ConfigError(f"{file}: {error}") from None
    table = Table("claim", "value", show_header=False)
    for name, value in {**said.header, **said.claims}.items():
        table.add_row(name, str(_moment(name, value)))
    table.add_row("signature", verdict)
    out.print(table)
    return code


def _moment(name: str, value: object) -> object:
    if name not in _TIMES or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return value


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not seconds:
        raise ConfigError(f"--ttl: {text!r} is no time: write 90s, 15m or 12h")
    return seconds
