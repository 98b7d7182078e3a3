"""`waybill prove`: one file that proves the story of a request to somebody who has a public key and nothing else."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from evidence.errors import ConfigError, StoreError
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, err, resolve, tell

if TYPE_CHECKING:
    from evidence.files.seam import Files
    from evidence.log.keys import KeyRing
    from evidence.pack import Pack
    from evidence.pack_rows import Place
    from evidence.verify.pack import PackReport
    from waybill.settings import Settings

_PLACES: Final = "select date, log_partition, log_offset from events where request_id = $id and stage <> 'operator'"
_LONGEST: Final = 80


def prove(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id.")],
    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write it (default: REQUEST_ID.pack.json); - prints it."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="DIR", help="The evidence store (default: the home's); s3://BUCKET/PREFIX too."
        ),
    ] = None,
    no_receipt: Annotated[bool, typer.Option("--no-receipt", help="Ask no broker: no receipt, no waybills.")] = False,  # noqa: FBT002 - a flag
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Sign nothing, and leave out the receipt.")] = False,  # noqa: FBT002 - a flag
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time limit of each look through the topics.")
    ] = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Write the proof pack of a request: its rows, the proof that the log holds them, its waybills and its receipt.

    Whoever has the file and the site's public key can check it offline: `waybill verify --pack FILE --key KEY`.

    It shows the rows of this request and of no other. It holds no text of the request or the answer.

    Example: `waybill prove 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11 --out pack.json`
    """
    settings = resolve(home=home, kafka=kafka)
    from evidence.verify.pack import verify_pack  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.stores import store_files  # noqa: PLC0415 - the same

    listen()
    files = store_files(settings, store)
    ring = None if unsigned else _ring(settings)
    places = _places(files, request_id, settings)
    pack = _pack(files, request_id, places, ring, settings, None if no_receipt else timeout) if places else None
    if pack is None:
        tell(
            f"waybill: evidence at {files.url('')} holds nothing of {request_id}: it was never sent, it is gone under "
            f"retention, or it was sent only just (evidence is up to {settings.freshness_seconds:g} s old)"
        )
        return 1
    report = None
    if ring is not None:
        # Who gets the pack finds out whether it holds; so does who makes it.
        report = verify_pack(pack.data, ring.vkeys)
        if report.first is not None:
            raise StoreError(f"the proof of {request_id} would not hold: {report.first}; `waybill verify` tells more")
    path = to or Path(f"{re.sub(r'[^A-Za-z0-9._-]', '_', request_id)[:_LONGEST]}.pack.json")
    if str(path) == "-":
        sys.stdout.buffer.write(pack.data)
        sys.stdout.buffer.flush()
    else:
        try:
            path.write_bytes(pack.data)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    _tell(path, pack, report, ring.vkeys[-1] if ring else None)
    return 0


def _ring(settings: Settings) -> KeyRing:
    from evidence.log.keys import KeyRing  # noqa: PLC0415 - `--help` needs none of it

    try:
        return KeyRing(settings.evidence_keys_folder, settings.site)
    except ConfigError as error:
        raise ConfigError(f"{error}; with --unsigned the proof needs no private key") from None


def _places(files: Files, request_id: str, settings: Settings) -> list[Place]:
    from evidence.pack_rows import Place  # noqa: PLC0415 - `--help` needs none of it
    from queries.database import Evidence  # noqa: PLC0415 - the same

    with (
        Evidence(files) as evidence,
        evidence.query(_PLACES, {"id": request_id}, settings.sql_seconds) as result,
    ):
        return [Place(*row) for row in result]


def _pack(
    files: Files,
    request_id: str,
    places: list[Place],
    ring: KeyRing | None,
    settings: Settings,
    timeout: float | None,
) -> Pack | None:
    from evidence.pack import Documents, build  # noqa: PLC0415 - `--help` needs none of it
    from streams.errors import BrokerUnavailable, TopicMismatch  # noqa: PLC0415 - the same
    from waybill.cli.kept import documents  # noqa: PLC0415 - the same

    def given(named: Mapping[str, Sequence[str]]) -> Documents:
        if timeout is None:
            return Documents()
        try:
            return asyncio.run(documents(settings.kafka_settings(), request_id, named, timeout))
        except (BrokerUnavailable, TopicMismatch) as error:
            raise type(error)(f"{error}; with --no-receipt the proof is made of evidence alone") from None

    return build(files, request_id, places=places, documents=given, signers=ring)


def _tell(path: Path, pack: Pack, report: PackReport | None, key: str | None) -> None:
    """Say on standard error what the pack holds and how to check it."""
    lines = [f"{path}: {pack.rows} rows, {len(pack.waybills)} waybills"]
    if report is not None:
        lines[0] += ", the receipt" if report.receipt else ", no receipt"
        lines += [
            f"    intake {story.intake_id}: events {story.told()}, {'ended' if story.ended else 'not ended'}"
            for story in report.stories
        ]
        lines += [f"    {note}" for note in report.notes]
    lines += [f"    waybill {digest}: its text is not in the pack" for digest in pack.wanted if not report]
    flags = f"--key '{key}'" if key else "--unsigned --key KEY"
    lines.append(f"check it with: waybill verify --pack {path} {flags}")
    for line in lines:
        err.print(line, soft_wrap=True)
