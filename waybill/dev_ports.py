"""The ports of `waybill dev`: those that everybody expects where they are free, the next ones where they are not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from evidence.errors import ConfigError

BROKER: Final = 9092
"""Where applications look for Kafka."""

WEB: Final = 6066
"""Where health and metrics are served."""

_TRIES: Final = 100


def choose(given: int | None, usual: int, *, what: str, how: str, say: Callable[[str], None]) -> int:
    """Return a free port of 127.0.0.1.

    Args:
        given: the one that was asked for, which must be free; None takes the usual one or the next that is free.
        usual: where to begin to look.
        what: what it is for.
        how: how a user sets it.
        say: is told where it is not the usual one.

    Raises:
        ConfigError: the given one is in use, or none is free.
    """
    if given is not None:
        if not is_free(given):
            raise ConfigError(
                f"port {given} of 127.0.0.1, for {what}, is in use by another program: stop that one, or set another "
                f"port with {how}"
            )
        return given
    for port in range(usual, usual + _TRIES):
        if is_free(port):
            if port != usual:
                say(f"{what}: port {usual} is in use by another program, so it is {port} ({how} sets it)")
            return port
    raise ConfigError(
        f"no port of 127.0.0.1 from {usual} to {usual + _TRIES - 1} is free: set one for {what} with {how}"
    )


def is_free(port: int) -> bool:
    """Return whether a program could listen on a port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what an ended program has left is no hindrance
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True
