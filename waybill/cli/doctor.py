"""`waybill doctor`: is everything there that a run needs?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from queries.terminal import Text
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, out, resolve

if TYPE_CHECKING:
    from waybill.settings import Settings


def doctor(home: Home = None, kafka: Kafka = None) -> int:
    """Check settings, broker, topics, clock, worker, model endpoints and evidence; exit code 1 when one fails.

    One line each: what was found, or what is wrong and what to do.

    Example: `waybill doctor --kafka kafka:9092`
    """
    return asyncio.run(_all(resolve(home=home, kafka=kafka)))


async def _all(settings: Settings) -> int:
    from waybill.cli.checkup import findings  # noqa: PLC0415 - `--help` needs none of it

    listen()
    good = True
    async for found in findings(settings):
        good &= found.good
        mark = Text("✓ ", "green") if found.good else Text("✗ ", "red")
        out.print(mark + Text(f"{found.name}: ", "bold") + Text(" ".join(found.said.split())))
    return 0 if good else 1
