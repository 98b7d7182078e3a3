"""`waybill reveal`: an answer with the originals in the place of its pseudonyms, once evidence says who looked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from evidence.errors import ConfigError, RecordError
from waybill.cli.interrupts import listen
from waybill.cli.options import By, Home, Kafka, err, out, resolve, tell
from waybill.cli.retention import Reason, hold_book, masked, opened, who

if TYPE_CHECKING:
    from policy.retention import Kind
    from policy.vault.store import SealedObject
    from waybill.settings import Settings


def reveal(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id.")],
    reason: Reason,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A text of yours instead of the answer; - for stdin.")
    ] = None,
    request: Annotated[bool, typer.Option("--request", help="Show the kept request instead of the answer.")] = False,  # noqa: FBT002 - a flag
    intake: Annotated[
        str | None, typer.Option("--intake", metavar="ID", help="Which arrival, where the request arrived repeatedly.")
    ] = None,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,  # noqa: FBT002 - a flag
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Time limit of the search.")] = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Show an answer with its pseudonyms, such as [EMAIL_1], replaced by what they stand for.

    Who looked, why, and how many pseudonyms of which kinds were replaced is durable in evidence before anything is
    shown; where it cannot be written, nothing is shown.

    Example: `waybill reveal 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11 --reason "the customer asked"`
    """
    settings = resolve(home=home, kafka=kafka)
    actor, why = who(by), masked(reason)
    if file is not None and request:
        raise ConfigError("--file and --request each say what to show: give one of them, not both")
    if file == Path("-") and not yes:
        raise ConfigError("a text from stdin leaves no way to ask you: add --yes")
    from policy.retention import expired  # noqa: PLC0415 - the same
    from policy.vault import reveal as revealing  # noqa: PLC0415 - `--help` needs none of it
    from policy.vault.erasure import Erasures  # noqa: PLC0415 - the same
    from policy.vault.store import open_object  # noqa: PLC0415 - the same

    listen()
    vault, store = opened(settings)
    # What has to be gone is gone, although no run has removed it yet.
    now = datetime.now(UTC)
    store.cover(hold_book(settings).active)
    kept = [item for item in store.of_request(request_id) if not expired(item, now)]
    if not kept:
        gone = Erasures(store).of_request(request_id)
        if gone is not None:
            raise RecordError(
                "erased",
                f"what the vault kept of {request_id} was erased on {gone.at:%Y-%m-%d}, as the person asked: nobody "
                "can reveal it any more",
            )
        raise RecordError(
            "nothing_kept",
            f"the vault keeps nothing of {request_id}: it held no pseudonyms, or retention has removed them",
        )
    text, arrival = _given(file), intake
    if text is None and not request:
        text, arrival = _answer(settings, request_id, intake, timeout)
    chosen = {item.kind: item for item in _one_arrival(kept, arrival)}
    pseudonyms = chosen.get("pseudonyms")
    originals = {} if pseudonyms is None else revealing.unpack(open_object(vault, pseudonyms))
    if text is None:
        text = open_object(vault, _payload(chosen, request_id, request=request)).decode()
    shown = revealing.reveal(text, originals)
    if not yes:
        err.print(
            f"this shows {sum(count for _, count in shown.counts)} originals, and evidence will say that you saw them"
        )
        typer.confirm("show them?", abort=True, err=True)
    what = "file" if file else "request" if request else "answer"
    asyncio.run(_say(settings, next(iter(chosen.values())), actor, why, shown.counts, what))
    out.print(shown.text, soft_wrap=True)
    if shown.unknown:
        tell(f"waybill: {shown.unknown} placeholders have no original in this request's map, and stayed")


def _given(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return sys.stdin.read() if file == Path("-") else file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8") from error


def _answer(settings: Settings, request_id: str, intake: str | None, timeout: float) -> tuple[str | None, str | None]:
    """Give the answer on `ai.responses` and the arrival that it is of."""
    from waybill.cli.traffic import find_response  # noqa: PLC0415 - `--help` needs none of it

    found = asyncio.run(find_response(settings.kafka_settings(), request_id, timeout)) or {}
    arrival = (found.get("receipt") or {}).get("intakeId")
    text = (found.get("output") or {}).get("text")
    if text is None or (intake is not None and arrival != intake):
        return None, intake
    return str(text), intake or arrival


def _one_arrival(kept: Sequence[SealedObject], intake: str | None) -> list[SealedObject]:
    arrivals = list(dict.fromkeys(item.intake_id for item in kept))
    if intake is None and len(arrivals) > 1:
        raise ConfigError(f"the request arrived {len(arrivals)} times: choose with --intake {', '.join(arrivals)}")
    chosen = [item for item in kept if item.intake_id == (intake or arrivals[0])]
    if not chosen:
        raise RecordError(
            "nothing_kept", f"the vault keeps nothing of the arrival {intake}; it has {', '.join(arrivals)}"
        )
    return chosen


def _payload(chosen: Mapping[Kind, SealedObject], request_id: str, *, request: bool) -> SealedObject:
    item = chosen.get("request" if request else "response")
    if item is None:
        where = "in the vault" if request else "on ai.responses, nor in the vault"
        what = "request" if request else "answer"
        raise RecordError("nothing_kept", f"there is no {what} of {request_id} {where}: give a text as --file")
    return item


async def _say(
    settings: Settings, item: SealedObject, actor: str, why: str, counts: Sequence[tuple[str, int]], what: str
) -> None:
    """Write evidence of what is about to be shown; it is durable when this returns."""
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    content = {"reason": why, "intake": item.intake_id, "shown": what, "placeholders": dict(counts)}
    fields: dict[str, Any] = {"tenant_ref": item.tenant, "detail": orjson.dumps(content).decode()}
    if item.subject is not None:
        fields["subject_ref"] = item.subject
    deed = Deed(EventType.PSEUDONYM_REVEALED, item.request_id, actor, fields)
    await say(settings.kafka_settings(), (deed,), site=settings.site, now=datetime.now(UTC))
