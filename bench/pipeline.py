"""The whole pipeline, evidence on: requests a second, CPU per request, and the latency that it adds."""

from __future__ import annotations

from typing import Any

from bench.load import EVENTS_PER_REQUEST, Client, evidence_complete
from bench.rig import pipeline

REQUESTS = 10_000
WARM_UP = 1_000
IN_FLIGHT = {1: 300, 32: 3_000, 256: 5_000}
"""Requests measured at each number in flight."""


async def measure() -> dict[str, Any]:
    """Measure against a stand-in that answers at once."""
    async with pipeline() as rig, Client(rig) as client:
        await client.run(WARM_UP, 256)
        await evidence_complete(rig, client.sent)
        before = rig.cpu()
        seconds, _ = await client.run(REQUESTS, REQUESTS)
        await evidence_complete(rig, client.sent)
        spent = rig.spent(before, REQUESTS)
        latency = {}
        for in_flight, total in IN_FLIGHT.items():
            _, found = await client.run(total, in_flight)
            latency[str(in_flight)] = {
                f"p{p}_ms": round(found[int(len(found) * p / 100)] * 1e3, 2) for p in (50, 90, 99)
            }
        await evidence_complete(rig, client.sent)
    outside = {name: value for name, value in spent.items() if name != "broker"}
    return {
        "requests": REQUESTS,
        "events_per_request": EVENTS_PER_REQUEST,
        "requests_per_second": round(REQUESTS / seconds, 1),
        "cpu_us_per_request": spent,
        "cpu_us_per_request_outside_broker": round(sum(outside.values()), 1),
        "added_latency_by_in_flight": latency,
    }
