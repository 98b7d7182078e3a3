"""`waybill doctor`: is everything there that a run needs?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queries.terminal import Text
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Json, Kafka, out, resolve, write_json

if TYPE_CHECKING:
    from waybill.settings import Settings


def doctor(
    as_json: Json = False,  # noqa: FBT002 - a flag
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Check settings, broker, topics, clock, worker, site, model endpoints and evidence; exit code 1 when one fails.

    One line each: what was found, or what is wrong and what to do.

    Example: `waybill doctor --kafka kafka:9092`
    """
    return asyncio.run(_all(resolve(home=home, kafka=kafka), as_json=as_json))


async def _all(settings: Settings, *, as_json: bool) -> int:
    from waybill.cli.checkup import findings  # noqa: PLC0415 - `--help` needs none of it

    listen()
    good = True
    told = []
    async for found in findings(settings):
        good &= found.good
        if as_json:
            told.append({"check": found.name, "good": found.good, "said": found.said})
            continue
        mark = Text("✓ ", "green") if found.good else Text("✗ ", "red")
        out.print(mark + Text(f"{found.name}: ", "bold") + Text(" ".join(found.said.split())))
    if as_json:
        write_json({"good": good, "checks": told})
    return 0 if good else 1
