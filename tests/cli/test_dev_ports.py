"""The ports of `waybill dev`: the usual ones where free, else the next, and never another than was asked for."""

from __future__ import annotations

import socket

import pytest

from evidence.errors import ConfigError
from streams.brokers.process import free_port
from waybill.dev_ports import choose, is_free


def chosen(given: int | None, usual: int) -> tuple[int, list[str]]:
    """Choose; return the port and what is said."""
    said: list[str] = []
    return choose(given, usual, what="the broker", how="--port", say=said.append), said


def test_the_usual_port_is_taken_without_a_word():
    """Where it is free, each run has the same one."""
    usual = free_port()
    assert chosen(None, usual) == chosen(None, usual) == (usual, [])


def test_the_next_free_port_is_told():
    """Where another program listens there, the next one is taken, and the user reads it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        usual = other.getsockname()[1]
        port, (said,) = chosen(None, usual)
    assert port > usual
    assert f"port {usual} is in use by another program, so it is {port} (--port sets it)" in said


def test_a_port_that_was_asked_for_and_is_taken_is_an_error():
    """One sentence, and nothing else in its place."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {given} of 127\.0\.0\.1, for the broker, is in use"):
            chosen(given, 1)


def test_what_an_ended_program_has_left_is_no_hindrance():
    """A port whose last connections are still closing can be listened on again."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = server.accept()
    accepted.close()  # this side keeps the port for a minute
    client.close()
    server.close()
    assert is_free(port)
