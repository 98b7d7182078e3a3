"""Whether each endpoint answers as it is set: asked at a start and by `waybill doctor`, before a request finds out.

What is sent is no request of anybody's and costs nothing: to an OpenAI-compatible provider `GET <URL>/models` with the
workload's key, to Triton a question whether its models are ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from evidence.errors import ConfigError, UnavailableError, WaybillError
from inference.backend import Backend
from inference.routes import load
from inference.triton import TritonBackend
from waybill.assembly import backends
from waybill.endpoints import EndpointConfig
from waybill.settings import Settings

WITHIN_S: Final = 20.0
"""Seconds that the check of one endpoint may take."""

_PLAIN_S: Final = 3.0
_PATHS: Final = ("/chat/completions", "/completions", "/models")


async def check_endpoint(settings: Settings, name: str) -> str:
    """Ask an endpoint; return what it says.

    Raises:
        ConfigError: its URL or its key cannot be right.
        WaybillError: it does not answer, or refuses.
    """
    config = settings.endpoints[name]
    if config.kind == "triton":
        # With its models named, it is asked for a token of each: a server can be up and its model dead.
        models = {route.model for route in load(settings.routes).routes if route.endpoint == name}
        backend: Backend = TritonBackend(config.url, models=sorted(models))
    else:
        _check_path(config)
        backend = backends(settings.model_copy(update={"endpoints": {name: config}}))[name]
    try:
        said = await backend.ready()
    except WaybillError as error:
        if config.url.startswith("https:") and await _speaks_plaintext(config.url):
            raise ConfigError(f"{config.url} answers without TLS: use http://, or the port that has TLS") from error
        raise
    finally:
        await backend.close()
    if said.endswith("(404)"):
        raise UnavailableError(
            f"{said} to GET {config.url.rstrip('/')}/models: the path is wrong (a URL ends before /chat/completions), "
            "unless this provider keeps no list of models"
        )
    return said


async def check_endpoints(settings: Settings, names: Iterable[str]) -> AsyncIterator[tuple[str, bool, str]]:
    """Ask several endpoints side by side; give name, whether it is well, and what was said, as each is known."""

    async def one(name: str) -> tuple[str, bool, str]:
        try:
            async with asyncio.timeout(WITHIN_S):
                return name, True, await check_endpoint(settings, name)
        except TimeoutError:
            return name, False, f"no answer within {WITHIN_S:g} s"
        except WaybillError as error:
            return name, False, str(error)

    tasks = [asyncio.create_task(one(name)) for name in names]
    try:
        for next_one in asyncio.as_completed(tasks):
            yield await next_one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check_path(config: EndpointConfig) -> None:
    path = urlsplit(config.url).path.rstrip("/")
    for end in _PATHS:
        if path.endswith(end):
            raise ConfigError(f"the URL {config.url} is one of the API's own paths: leave {end} out")


async def _speaks_plaintext(url: str) -> bool:
    """Return whether a server answers HTTP without TLS where the URL says that there is TLS."""
    parts = urlsplit(url)
    with suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(_PLAIN_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443)
            try:
                writer.write(b"HEAD / HTTP/1.0\r\n\r\n")
                await writer.drain()
                return (await reader.read(5)).startswith(b"HTTP/")
            finally:
                writer.close()
    return False
