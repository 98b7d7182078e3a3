"""`waybill evidence`: what a store holds, its checkpoints and keys, and what keeps it in shape."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from evidence.errors import ConfigError
from queries.terminal import data
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Json, err, out, resolve, tell, write_json

app = typer.Typer(help="The evidence store: files, checkpoints, keys.", no_args_is_help=True)

Store = Annotated[
    str | None,
    typer.Option("--store", metavar="PLACE", help="Folder or s3://BUCKET/PREFIX (default: this site's own store)."),
]


@app.command()
def files(
    store: Store = None,
    as_sql: Annotated[bool, typer.Option("--sql", help="Print them as DuckDB reads them.")] = False,  # noqa: FBT002 - a flag
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON lines.")] = False,  # noqa: FBT002 - a flag
    home: Home = None,
) -> None:
    """List the live Parquet files: those that count. Any program that reads these reads the evidence.

    Example: `waybill evidence files --sql`
    """
    settings = resolve(home=home)
    from evidence.store.live import LiveReader  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.stores import store_files  # noqa: PLC0415 - the same

    place = store_files(settings, store)
    live = LiveReader(place).refresh()
    if as_sql:
        listed = ",\n  ".join("'" + place.url(added.path).replace("'", "''") + "'" for added in live)
        out.print(
            f"FROM read_parquet([\n  {listed}\n], union_by_name = true, hive_partitioning = false)",
            soft_wrap=True,
        )
        return
    for added in live:
        said = {"path": place.url(added.path), "rows": added.rows, "bytes": added.size, "sha256": added.sha256}
        if as_json:
            write_json(said, indent=False)
        else:
            out.print(f"{added.rows:>10,} {added.size:>13,}  {place.url(added.path)}", soft_wrap=True)


@app.command()
def checkpoint(
    log: Annotated[str | None, typer.Argument(metavar="LOG", help="Which log; needed where there are several.")] = None,
    number: Annotated[int | None, typer.Option(metavar="N", min=0, help="Which commit (default: the newest).")] = None,
    store: Store = None,
    home: Home = None,
) -> None:
    """Print a log's signed checkpoint, to be kept elsewhere: `verify --since` finds what was cut off after it.

    Example: `waybill evidence checkpoint 5kfQYbtFR5SxUzNyM4kkNg.ai.evidence-0 > kept.note`
    """
    settings = resolve(home=home)
    from evidence.store.history import newest, read_commit  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.stores import logs, store_files  # noqa: PLC0415 - the same

    place = store_files(settings, store)
    there = logs(place)
    if log is None and len(there) != 1:
        raise ConfigError(f"which log? there are: {', '.join(there) or 'none'}")
    chosen = log or there[0]
    if chosen not in there:
        raise ConfigError(f"there is no log {chosen!r}; there are: {', '.join(there) or 'none'}")
    latest = newest(place, chosen)
    if latest is None or (number is not None and number > latest):
        raise ConfigError(f"{chosen} has no commit {number if number is not None else 0}; its newest is {latest}")
    note = read_commit(place, chosen, latest if number is None else number).note
    data(out, iter([note.decode()]), what="the checkpoint")


@app.command()
def logs(store: Store = None, as_json: Json = False, home: Home = None) -> None:  # noqa: FBT002 - a flag
    """List the logs: how many rows, up to which offset, since when, and what is lost or expired.

    Example: `waybill evidence logs`
    """
    settings = resolve(home=home)
    from evidence.log.ranges import count  # noqa: PLC0415 - `--help` needs none of it
    from evidence.store.history import commits_after  # noqa: PLC0415 - the same
    from evidence.store.live import read_live  # noqa: PLC0415 - the same
    from waybill.cli import stores  # noqa: PLC0415 - the same

    place = stores.store_files(settings, store)
    found = []
    for log in stores.logs(place):
        commits = list(commits_after(place, log, -1))
        if not commits:
            continue
        rejected = sum(count(commit.rejected) for commit in commits)
        lost = sum(count(lost.offsets) for commit in commits for lost in commit.lost)
        expired = sum(count(gone.leaves) for commit in commits for gone in commit.expire)
        last = commits[-1]
        found.append(
            {
                "log": log,
                "rows": last.size,
                "files": len(read_live(place, log).files),
                "next offset": last.next,
                "commits": len(commits),
                "newest commit": f"{last.time:%Y-%m-%d %H:%M:%S}Z",
                "rejected": rejected,
                "lost": lost,
                "expired": expired,
            }
        )
    if as_json:
        write_json([{_member(name): value for name, value in each.items()} for each in found])
        return
    table = Table("log", "rows", "files", "next offset", "commits", "newest commit", "rejected", "lost", "expired")
    for each in found:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in each.values()))
    out.print(table)


def _member(name: str) -> str:
    first, *rest = name.split()
    return first + "".join(word.title() for word in rest)


@app.command()
def compact(store: Store = None, home: Home = None) -> None:
    """Compact now what the workers compact beside their work: for a store whose workers have ended.

    Example: `waybill evidence compact`
    """
    settings = resolve(home=home)
    from evidence.store.layout import LogPartition  # noqa: PLC0415 - `--help` needs none of it
    from evidence.store.live import read_live  # noqa: PLC0415 - the same
    from evidence.store.site import EvidenceStore  # noqa: PLC0415 - the same
    from evidence.store.upkeep import Upkeep  # noqa: PLC0415 - the same
    from waybill.cli import stores  # noqa: PLC0415 - the same
    from waybill.parts import key_ring  # noqa: PLC0415 - the same

    listen()
    place = stores.store_files(settings, store)
    opened = EvidenceStore(place, settings.site, key_ring(settings), lock_wait_s=1)
    upkeep = Upkeep(place, grace_s=settings.grace_seconds, max_rows=settings.compact_rows)
    for name in stores.logs(place):
        log = LogPartition.named(name)
        before = len(read_live(place, name).files)
        begun = time.monotonic()
        with opened.open(log.log_id, log.topic, log.partition) as writer:
            upkeep(writer)
            after = len(writer.live.files)
            what = (
                f"{before} files are {after} now" if after < before else "nothing to compact (64 files, or an old day)"
            )
            tell(f"waybill: {name}: {what}, {time.monotonic() - begun:.1f} s")


@app.command()
def copy(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the copy goes; a later run goes on.")],
    store: Store = None,
    home: Home = None,
) -> None:
    """Copy a store, byte for byte, to be checked elsewhere with nothing but a public key.

    Example: `waybill evidence copy /mnt/audit`
    """
    settings = resolve(home=home)
    from waybill.cli.progress import counting  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.stores import copied, is_local, store_files  # noqa: PLC0415 - the same

    listen()
    place = store_files(settings, store)
    if is_local(place) and folder.resolve().is_relative_to(Path(place.url("")).resolve()):
        raise ConfigError(f"{folder} lies in the store itself; name a folder elsewhere")
    with counting(err) as progress:
        task = progress.add_task("copying", total=None)
        copied(place, folder, lambda done, total: progress.update(task, completed=done, total=total))
    tell(f"waybill: copied to {folder}; check it with `python -m evidence.verify {folder} --key VKEY`")


@app.command()
def keys(home: Home = None) -> None:
    """Print the verifier keys of this home's store, the newest last: what an auditor needs, and no secret.

    They name the site that the store says it is of, whatever the setting SITE says here.

    Example: `waybill evidence keys | tail -1 > home.vkey`
    """
    settings = resolve(home=home)
    from waybill.cli.stores import own_keys, store_site  # noqa: PLC0415 - `--help` needs none of it

    for vkey in own_keys(settings, store_site(settings.evidence_files())):
        out.print(vkey, soft_wrap=True)


@app.command("rotate-key")
def rotate_key(home: Home = None) -> None:
    """Make a new signing key. Each log names it in its next commit, signed by both keys; then the new one signs.

    Example: `waybill evidence rotate-key`
    """
    settings = resolve(home=home)
    from evidence.log.keys import KeyRing  # noqa: PLC0415 - `--help` needs none of it

    ring = KeyRing(settings.evidence_keys_folder, settings.site)
    tell(f"waybill: the logs go on with {ring.rotate().vkey}; the old key is needed until each log has named it")


@app.command()
def cosign(
    witness: Annotated[Path, typer.Argument(metavar="FOLDER", help="The witness's own folder: its key, its memory.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The witness's name.")],
    key: Annotated[list[str], typer.Option(metavar="VKEY|@FILE", help="Verifier keys of the logs.")],
    store: Store = None,
    home: Home = None,
) -> None:
    """As a second party, sign the newest checkpoint of each log, if it goes on from the one that was signed before.

    The witness's key is made on the first run. A fork, or a log that has shrunk, is refused and named: exit code 1.

    Example: `waybill evidence cosign ~/witness --name auditor.example --key @home.vkey --store /mnt/evidence`
    """
    settings = resolve(home=home)
    from evidence.log.notes import NotSignedError, Verifier  # noqa: PLC0415 - `--help` needs none of it
    from evidence.log.witness import Witness  # noqa: PLC0415 - the same
    from evidence.store.history import newest, read_commit  # noqa: PLC0415 - the same
    from evidence.store.layout import LOGS  # noqa: PLC0415 - the same
    from evidence.store.state import tile_reader  # noqa: PLC0415 - the same
    from waybill.cli import stores  # noqa: PLC0415 - the same

    place = stores.store_files(settings, store)
    known = [Verifier.from_vkey(stores.read_key(text)) for text in key]
    made = Witness(witness, name) if (witness / "key.pem").exists() else Witness.create(witness, name)
    now = int(datetime.now(UTC).timestamp())
    for log in stores.logs(place):
        number = newest(place, log)
        if number is None:
            continue
        noted = read_commit(place, log, number)
        try:
            signed = made.cosign(noted.note, known, tile_reader(place, log), at=now)
        except NotSignedError as error:
            raise ConfigError(f"{log}: {error}; if the site rotated its key, give the new one too (--key)") from None
        place.replace(f"{LOGS}/{log}/witness/{name}/{number:012d}", signed)
        tell(f"waybill: {log}: cosigned commit {number}, {noted.commit.size:,} rows")
    out.print(made.vkey, soft_wrap=True)
