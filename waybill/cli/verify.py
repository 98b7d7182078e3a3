"""`waybill verify`: checks an evidence store, with the same checker that `python -m evidence.verify` is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer

from evidence.errors import ConfigError
from waybill.cli.options import Home, err, out, resolve, tell, write_json_text

USAGE: Final = 2


def verify(
    store: Annotated[
        str | None,
        typer.Argument(metavar="STORE", help="Folder or s3://BUCKET/PREFIX of the store (default: this site's own)."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VKEY|@FILE",
            help="Verifier key of the logs; any that ever signed. Default: this site's own keys, which proves less.",
        ),
    ] = None,
    pack: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check a pack of `waybill prove` instead of a store.")
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(metavar="VKEY|@FILE", help="The newest commits must bear its cosignature.")
    ] = None,
    since: Annotated[
        list[Path] | None,
        typer.Option(metavar="NOTE", help="A checkpoint that you kept: the store must still contain it."),
    ] = None,
    max_age: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0, help="How old the newest commit of a log may be.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Logs that each topic must have, whatever the commits say.")
    ] = None,
    open_after: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long behind its deadline a request may be open.")
    ] = 900.0,
    accept_loss: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--accept-loss", help="Offsets that the log says were lost are in order.")
    ] = False,
    unsigned: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--unsigned", help="A pack without a signature will do; its rows need none.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Processes (default: all cores).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> int:
    """Check evidence: every row is hashed anew, and every root, tile, file, signature and story is compared.

    The exit code is 0 where all is as it must be, and 1 where not: the first line then names the first bad thing.
    Whoever does not trust this machine takes the files and a key elsewhere and runs `python -m evidence.verify` there.

    Example: `waybill verify /mnt/copy --key @home.vkey --since kept.note`
    """
    settings = resolve(home=home)
    from evidence.verify import check  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.places import BucketPlace  # noqa: PLC0415 - the same
    from waybill.cli.stores import is_local, own_keys, read_key, store_files  # noqa: PLC0415 - the same

    keys = [read_key(text) for text in key] if key else own_keys(settings)
    if not key:
        tell("waybill: checked with the keys that lie in this home; an auditor brings the key by another way (--key)")
    if since and len(since) > 1:
        raise ConfigError("--since takes one checkpoint: check once for each")
    kept = since[0] if since else None
    if pack is not None and store is not None:
        raise ConfigError("name a store, or a pack with --pack, not both")
    if pack is not None:
        return _pack(pack, keys, [read_key(text) for text in witness or ()], unsigned=unsigned, as_json=as_json)
    options: dict[str, Any] = {
        "witnesses": [read_key(text) for text in witness or ()],
        "since": _read(kept),
        "since_name": str(kept or ""),
        "max_age": None if max_age is None else timedelta(seconds=max_age),
        "partitions": partitions,
        "open_after": timedelta(seconds=open_after),
        "accept_loss": accept_loss,
        "jobs": jobs,
    }
    files = store_files(settings, store)
    try:
        url = files.url("")
        place = url if is_local(files) else BucketPlace(url, settings.evidence_s3.access())
        with _Bar() as bar:
            report = check.verify(place, keys, progress=bar.checked, **options)
    except check.UsageError as error:
        raise ConfigError(str(error)) from None
    print_report(report, as_json=as_json)
    return 0 if report.ok else 1


def print_report(report: Any, *, as_json: bool) -> None:
    """Print a report of the checker."""
    if as_json:
        write_json_text(report.to_json())
    else:
        out.print(report.to_text(), soft_wrap=True)


def _pack(pack: Path, keys: list[str], witnesses: list[str], *, unsigned: bool, as_json: bool) -> int:
    from evidence.verify.notes import NoteError  # noqa: PLC0415 - `--help` needs none of it
    from evidence.verify.pack import verify_pack  # noqa: PLC0415 - the same

    try:
        report = verify_pack(_read(pack) or b"", keys, witnesses, unsigned=unsigned)
    except NoteError as error:
        raise ConfigError(f"--key: {error}") from None
    print_report(report, as_json=as_json)
    return 0 if report.ok else 1


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


class _Bar:
    """Progress on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        from waybill.cli.progress import counting  # noqa: PLC0415 - `--help` needs none of it

        self._progress = counting(err)
        self._task: Any = None
        self._phase = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def checked(self, progress: Any) -> None:
        """So many rows are checked."""
        self._show(f"checking {progress.phase}", progress.rows, progress.total)

    def _show(self, phase: str, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(phase, total=total or None)
        self._progress.update(self._task, description=phase, completed=done, total=total or None)
