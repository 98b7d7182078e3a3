"""`waybill receipt`: the route receipt of one request."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, out, resolve, tell, write_json


def receipt(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="The request's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as it travels.")] = False,  # noqa: FBT002 - a flag
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Time limit of the search.")] = 30.0,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Show what became of a request: what served it, where, why, under which contract, at what cost.

    The response is looked for on `ai.responses`, as long as the broker keeps it; evidence stays (`waybill trace`).
    Where several arrivals have this id, the first that was answered is shown, and a line for each of the others.

    Example: `waybill receipt 7d0c1f6e-8a35-4d7a-9a44-5f3f0b0f6d11`
    """
    settings = resolve(home=home, kafka=kafka)
    from waybill.cli.receipts import other_arrivals, receipt_panel  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.traffic import find_responses, standing  # noqa: PLC0415 - the same

    listen()
    responses = asyncio.run(find_responses(settings.kafka_settings(), request_id, timeout))
    found = standing(responses)
    if found is None:
        tell(
            f"waybill: there is no response of {request_id} on ai.responses at {settings.kafka}: it has not ended, "
            f"was never sent, or is no longer kept; `waybill trace {request_id}` looks in evidence"
        )
        return 1
    others = [one for one in responses if one is not found]
    if as_json:
        write_json({**found, "others": others} if others else found)
    else:
        out.print(receipt_panel(found))
        for line in other_arrivals(others):
            out.print(line)
    return 0
