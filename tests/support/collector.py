"""The HTTP end of an OpenTelemetry collector: takes spans as protobuf and keeps them."""

from __future__ import annotations

from typing import Self

from aiohttp import web
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """A collector that listens on this machine; use `async with`."""

    def __init__(self) -> None:
        self.taken: list[ExportTraceServiceRequest] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, asked: web.Request) -> web.Response:
        self.taken.append(ExportTraceServiceRequest.FromString(await asked.read()))
        return web.Response()

    def spans(self) -> list[tuple[str, bytes]]:
        """Give every span by its name, as JSON, with the resource and the scope that it came with."""
        return [
            (span.name, MessageToJson(resource.resource).encode() + MessageToJson(span, indent=None).encode())
            for request in self.taken
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
