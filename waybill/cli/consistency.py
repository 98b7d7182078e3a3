"""`waybill consistency`: whether a log only grew between two of its checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evidence.errors import ConfigError
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, out, resolve, tell

if TYPE_CHECKING:
    from evidence.files.seam import Files
    from waybill.settings import Settings


def consistency(
    old: Annotated[
        str | None,
        typer.Argument(metavar="OLD", help="The older checkpoint: a file, - for standard input, or a commit's number."),
    ] = None,
    new: Annotated[
        str | None,
        typer.Argument(metavar="NEW", help="The newer one, likewise; or a log's name, for its newest commit."),
    ] = None,
    log: Annotated[str | None, typer.Option("--log", metavar="NAME", help="Which log, where it does not show.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="VKEY", help="A verifier key of the log, or @FILE; may be repeated (default: the site's)."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the proof, for others to check offline.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", metavar="FILE", help="Check such a file; no store is needed.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="DIR", help="The evidence store (default: the home's); s3://BUCKET/PREFIX too."
        ),
    ] = None,
    home: Home = None,
) -> int:
    """Prove that a log only grew from one checkpoint to another: nothing was changed, removed or put in between.

    Exit code 1 where it did not, which is named FORK or SHRUNK.

    Example: `waybill consistency kept.note MkU3OEVB.ai.evidence-0 --key 'waybill/home+3f2a9c01+AbCd…'`
    """
    settings = resolve(home=home)
    listen()
    from evidence.verify.consistency import verify_consistency  # noqa: PLC0415 - `--help` needs none of it
    from evidence.verify.notes import NoteError  # noqa: PLC0415 - the same

    if proof is not None:
        if old is not None or to is not None:
            raise ConfigError("--proof checks a file that holds both checkpoints: name no others, and no --out")
        data = _file(proof)
        keys = _keys(key, None)
    else:
        if old is None or new is None:
            raise ConfigError("name two checkpoints, OLD and NEW, or a proof's file with --proof")
        data = _proof(old, new, log, store, settings)
        keys = _keys(key, settings)
        if to is not None:
            try:
                to.write_bytes(data)
            except OSError as error:
                raise ConfigError(f"cannot write {to}: {error.strerror}") from error
    try:
        report = verify_consistency(data, keys)
    except NoteError as error:
        raise ConfigError(f"--key: {error}") from None
    out.print(("consistent: " if report.ok else "NOT consistent: ") + report.what, soft_wrap=True)
    if report.ok and not report.signed:
        tell("waybill: who signed the checkpoints was not checked; give the log's verifier key with --key")
    return 0 if report.ok else 1


def _proof(old: str, new: str, log: str | None, store: str | None, settings: Settings) -> bytes:
    from evidence.consistency import prove  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.stores import logs as logs_of  # noqa: PLC0415 - the same
    from waybill.cli.stores import store_files  # noqa: PLC0415 - the same

    if old == new == "-":
        raise ConfigError("standard input can be one checkpoint, not both")
    files = store_files(settings, store)
    logs = logs_of(files)
    given = {text: _given(text) for text in (old, new) if not text.isdecimal() and text not in logs}
    stated = [_log_of(text, note) for text, note in given.items()]
    if len(two := sorted({*stated, *(text for text in (old, new) if text in logs)})) > 1:
        raise ConfigError(f"OLD and NEW are of two logs, {' and '.join(two)}; name two checkpoints of one")
    name = log or next((text for text in (old, new) if text in logs), None) or next(iter(stated), None)
    name = name or _only(files, logs)
    if name not in logs:
        raise ConfigError(f"{files.url('')} has no log {name}; it has {', '.join(logs) or 'none'}")
    notes = [given[text] if text in given else _stored(files, name, text) for text in (old, new)]
    return prove(files, name, *notes)


def _given(text: str) -> bytes:
    return sys.stdin.buffer.read() if text == "-" else _file(Path(text))


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; it is no file, no commit and no log") from error


def _log_of(text: str, note: bytes) -> str:
    """Give the name of the log that a checkpoint states."""
    from evidence.verify.signed import Untrue, read_signed  # noqa: PLC0415 - `--help` needs none of it

    try:
        return read_signed(note.decode(), text).commit.origin.folder
    except (Untrue, UnicodeDecodeError):
        raise ConfigError(f"{text} is no checkpoint of a log, as `logs/<log>/commits/` holds them") from None


def _only(files: Files, logs: tuple[str, ...]) -> str:
    if len(logs) != 1:
        raise ConfigError(f"{files.url('')} has {len(logs)} logs; name one with --log: {', '.join(logs)}")
    return logs[0]


def _stored(files: Files, log: str, text: str) -> bytes:
    from evidence.files.seam import NotThere  # noqa: PLC0415 - `--help` needs none of it
    from evidence.store.history import newest, read_commit  # noqa: PLC0415 - the same

    number = int(text) if text.isdecimal() else newest(files, log)
    try:
        if number is not None:
            return read_commit(files, log, number).note
    except NotThere:
        pass
    raise ConfigError(f"{files.url('')} has no commit {text} of {log}")


def _keys(given: list[str] | None, settings: Settings | None) -> list[str]:
    """Give the keys that are trusted: those that were named, else the site's own."""
    from waybill.cli.stores import own_keys, read_key  # noqa: PLC0415 - `--help` needs none of it

    if given:
        return [read_key(text) for text in given]
    if settings is not None and settings.evidence_keys_folder.is_dir():
        return own_keys(settings)
    return []
