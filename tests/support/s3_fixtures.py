"""A bucket for tests: an S3 server of this machine, spoken to over HTTP, and one in between that meddles."""

from __future__ import annotations

import http.client
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

ACCESS_KEY = "AKIATESTTESTTESTTEST"
SECRET_KEY = "not-a-secret/only+for+the+test+server000"  # noqa: S105 - the server of the tests takes any
_numbers = itertools.count()


@dataclass(frozen=True)
class Bucket:
    """An empty bucket on a running server."""

    endpoint: str
    """The server's URL."""
    name: str
    """The bucket's name."""

    @property
    def url(self) -> str:
        """The place of a store in it."""
        return f"s3://{self.name}/evidence"


class OneAtATime:
    """Has conditional requests served one after the other, as a bucket does; the threads of moto do not wait."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve a request."""
        if "HTTP_IF_NONE_MATCH" not in environ:
            return self._app(environ, start_response)
        with self._turn:
            return list(self._app(environ, start_response))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Give the URL of a running S3 server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    server._server.app = OneAtATime(server._server.app)
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Give an empty bucket, and the environment that says who may use it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    made = Bucket(s3_server, f"waybill-{next(_numbers)}")
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    client.create_bucket(Bucket=made.name)
    client.close()
    return made


@dataclass
class Call:
    """A request on its way, and the answer once there is one."""

    method: str
    path: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes
    status: int = 0
    answer: bytes = b""
    answer_headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Meddler:
    """A server in between: changes requests and answers, or loses them."""

    url: str = ""
    before: Callable[[Call], None] = lambda _: None
    """May change a request; may set status and answer, and the request goes no further."""
    after: Callable[[Call], bool] = lambda _: True
    """May change an answer; False loses it: the connection is cut."""
    calls: list[Call] = field(default_factory=list)
    """All requests, in the order in which they ended."""


@contextmanager
def meddling(target: str) -> Iterator[Meddler]:
    """Run a server in between."""
    meddler, host = Meddler(), urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            call = Call(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            meddler.before(call)
            if not call.status:
                connection = http.client.HTTPConnection(host, timeout=20)
                connection.request(call.method, call.path, call.body, call.headers)
                response = connection.getresponse()
                call.status, call.answer = response.status, response.read()
                call.answer_headers = response.getheaders()
                connection.close()
            kept = meddler.after(call)
            meddler.calls.append(call)
            if not kept:
                self.close_connection = True
                return
            self.send_response_only(call.status)
            for name, value in call.answer_headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = dict(call.answer_headers).get("Content-Length") if call.method == "HEAD" else None
            self.send_header("Content-Length", length or str(len(call.answer)))
            self.end_headers()
            if call.method != "HEAD":
                self.wfile.write(call.answer)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    meddler.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield meddler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def meddler(s3_server: str) -> Iterator[Meddler]:
    """Give a server in front of the S3 server that does nothing yet but pass on."""
    with meddling(s3_server) as made:
        yield made
