"""`waybill send`: requests of a file, onto the topic."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, err, out, resolve, tell
from waybill.cli.tokens import read_token

if TYPE_CHECKING:
    from streams.kafka import KafkaSettings
    from waybill.cli.lines import Line


def send(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="One request as JSON on each line.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the responses and show them.")] = False,  # noqa: FBT002 - a flag
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="How long --wait waits for the last response.")
    ] = 300.0,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Who you are: a signed token, sent with each request."),
    ] = None,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Check the requests of a file and send them; nothing is sent where one is wrong.

    A line without `requestId` gets a fresh one, and one without `timestampUtc` the present; `deadlineInSeconds` may
    stand for `deadlineUtc`. Each id that is sent is printed. A worker that checks who asks wants a token
    (`waybill identity token` makes one for trying out); actor and tenant of the requests are those of the token.

    Example: `waybill send config/requests.jsonl --wait`
    """
    settings = resolve(home=home, kafka=kafka)
    from waybill.cli.lines import read  # noqa: PLC0415 - `--help` needs none of it

    lines = read(file, datetime.now(UTC), lambda: str(uuid4()))
    token, _ = read_token(token_file)
    listen()
    return asyncio.run(_send(settings.kafka_settings(), lines, timeout if wait else None, token))


async def _send(kafka: KafkaSettings, lines: tuple[Line, ...], wait_s: float | None, token: str | None) -> int:
    from waybill.cli.progress import display  # noqa: PLC0415 - as above
    from waybill.cli.receipts import outcomes_table  # noqa: PLC0415 - the same
    from waybill.cli.traffic import Traffic  # noqa: PLC0415 - the same

    async with Traffic(kafka, lines, token=token) as traffic:
        with display(err, len(lines), evidence=False) as shown:
            await traffic.send(shown.changed)
            ended = wait_s is None or await traffic.follow(shown.changed, wait_s)
    progress = traffic.progress
    if wait_s is None:
        for line in lines:
            out.print(line.request_id)
        return 0
    found = {**progress.dead, **progress.responses}
    out.print(outcomes_table((line.number, found[line.request_id]) for line in lines if line.request_id in found))
    if not ended:
        tell(
            f"waybill: {progress.total - progress.ended} of {progress.total} requests had no response after "
            f"{wait_s:g} s; they are on ai.requests and will have one when a worker runs"
        )
    return 0 if ended else 1
