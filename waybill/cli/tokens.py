"""Signed tokens that people hold in files, read for the commands that send them."""

from __future__ import annotations

from pathlib import Path

from evidence.errors import ConfigError, RecordError


def read_token(file: Path | None) -> tuple[str | None, str | None]:
    """Give a signed token and whose it says that it is; whether it holds is for the worker to say.

    Raises:
        ConfigError: the file cannot be read, or is none.
    """
    if file is None:
        return None, None
    from policy.files import read_text  # noqa: PLC0415 - `--help` needs none of it
    from policy.identity.jws import unchecked  # noqa: PLC0415 - the same

    text = read_text(file, "token").strip()
    text = text[len("bearer ") :] if text[: len("bearer ")].lower() == "bearer " else text
    try:
        holder = unchecked(text).claims.get("sub")
    except RecordError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(holder, str) or not holder:
        raise ConfigError(f"{file}: the token does not say whose it is: it has no `sub`")
    return text, holder
