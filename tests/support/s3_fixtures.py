"""A bucket for tests: an S3 server of this machine, in this process, that is really spoken to over HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Give the URL of a running S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
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
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=made.name)
    return made
