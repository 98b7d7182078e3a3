"""Evidence in a bucket: lost answers, conflicts, servers in trouble, credentials, and parts of files."""

from __future__ import annotations

import socket
import time
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_paths import COMMIT, TILE, paths
from s3_fixtures import ACCESS_KEY, SECRET_KEY

from evidence.errors import ConfigError, UnavailableError
from evidence.files.access import CredentialsFile
from evidence.files.local import LocalFiles
from evidence.files.places import BucketAccess, open_files
from evidence.files.s3 import S3Files
from evidence.files.seam import AlreadyThere


def quick(made, endpoint=None, **options):
    """Give a bucket's files, given up after a short time."""
    return S3Files(made.url, endpoint=endpoint or made.endpoint, **{"timeout_s": 5, "retry_s": 2} | options)


def lose(call):
    """Tell whether a call is a conditional put of evidence."""
    return call.method == "PUT" and "if-none-match" in call.headers and "/tmp/" not in call.path  # noqa: S108 - a key


@pytest.mark.parametrize("metadata", ["kept", "dropped"])
def test_a_lost_answer_to_a_creation_is_not_taken_for_another_s_file(bucket, meddler, metadata):
    """If the put has happened and its answer was lost, its caller has made the file, also where marks are dropped."""
    left = [True]

    def after(call):
        if metadata == "dropped":
            call.answer_headers = [(name, value) for name, value in call.answer_headers if "x-amz-meta" not in name]
        return not (lose(call) and left and left.pop())

    meddler.after = after
    quick(bucket, meddler.url).create(COMMIT, b"ours")
    assert [call.status for call in meddler.calls if lose(call)] == [200, 412]
    assert quick(bucket).read(COMMIT) == b"ours"
    with pytest.raises(AlreadyThere):
        quick(bucket, meddler.url).create(COMMIT, b"theirs")


@pytest.mark.parametrize("theirs", [b"theirs", b"ours"])
def test_another_s_file_is_not_taken_for_one_s_own_after_a_lost_answer(bucket, meddler, theirs):
    """If another was first, the caller hears it even if the request was lost, and even with the same content."""
    left = [True]

    def before(call):
        if lose(call) and left and left.pop():
            quick(bucket).create(COMMIT, theirs)
            call.status, call.answer = 503, b"<Error><Code>SlowDown</Code></Error>"

    meddler.before = before
    with pytest.raises(AlreadyThere):
        quick(bucket, meddler.url).create(COMMIT, b"ours")
    assert quick(bucket).read(COMMIT) == theirs


def test_a_conflict_of_two_puts_is_tried_again(bucket, meddler):
    """409 means that two puts met and this one was not done: it is no proof that a file is there."""
    left = [True, True]

    def before(call):
        if lose(call) and left and left.pop():
            call.status, call.answer = 409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"

    meddler.before = before
    quick(bucket, meddler.url).create(COMMIT, b"ours")
    assert quick(bucket).read(COMMIT) == b"ours"


def test_a_server_that_ignores_the_condition_is_found_out(bucket, meddler):
    """Where a conditional put overwrites, nothing is ever written: two writers could not be kept apart."""

    def before(call):
        call.headers.pop("if-none-match", None)

    meddler.before = before
    files = quick(bucket, meddler.url)
    for _ in range(2):
        with pytest.raises(ConfigError, match="ignores `If-None-Match`"):
            files.create(COMMIT, b"ours")
    assert paths(quick(bucket)) == []


def test_the_condition_is_tried_out_once(bucket, meddler):
    """What a server can do costs two requests in an empty bucket, one in a used one, and none after that."""
    for expected in (2, 2, 1):  # two puts; a put that fails and a look at the mark, in later processes
        files = quick(bucket, meddler.url)
        meddler.calls.clear()
        files.create(f"logs/{expected}/{len(paths(quick(bucket)))}", b"")
        probes = [call for call in meddler.calls if "conditional-put" in call.path and call.method == "PUT"]
        assert len(probes) == (2 if not paths(quick(bucket))[1:] else 1)
        meddler.calls.clear()
        files.create(f"logs/more/{len(paths(quick(bucket)))}", b"")
        assert [call.method for call in meddler.calls] == ["PUT"]


def test_what_passes_is_tried_again(bucket, meddler):
    """An answer that the server is busy is no failure, for reading and for writing."""
    quick(bucket).create(COMMIT, b"x")
    left = [True] * 3

    def before(call):
        if left and left.pop():
            call.status, call.answer = 503, b"<Error><Code>SlowDown</Code></Error>"

    meddler.before = before
    files = quick(bucket, meddler.url)
    assert files.read(COMMIT) == b"x"
    left.append(True)
    files.replace(TILE, b"y")
    left.append(True)
    assert paths(files) == [COMMIT, TILE]


def test_a_server_that_is_not_there_is_unavailable(bucket):
    """Every call fails with an error that says to try later, and does not wait for ever."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        files = S3Files(bucket.url, endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", timeout_s=0.3, retry_s=0.3)
        for call in (
            lambda: files.create(COMMIT, b""),
            lambda: files.replace(COMMIT, b""),
            lambda: files.replace_many([(COMMIT, b""), (TILE, b"")]),
            lambda: files.read(COMMIT),
            lambda: files.reader(COMMIT),
            lambda: files.list(""),
            lambda: files.folders(""),
            lambda: files.delete(COMMIT),
        ):
            begun = time.monotonic()
            with pytest.raises(UnavailableError, match=f"s3://{bucket.name}/evidence"):
                call()
            assert time.monotonic() - begun < 10


def test_a_server_that_says_nothing_is_given_up(bucket):
    """A connection without an answer ends after the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        files = S3Files(bucket.url, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3, retry_s=0.5)
        begun = time.monotonic()
        with pytest.raises(UnavailableError):
            files.read(COMMIT)
        with pytest.raises(UnavailableError):
            files.create(COMMIT, b"")
        assert time.monotonic() - begun < 20


def test_a_bucket_that_is_not_there_is_named(bucket):
    """A wrong bucket is not an empty store."""
    files = S3Files("s3://no-such-bucket/evidence", endpoint=bucket.endpoint, retry_s=1)
    for call in (lambda: files.read(COMMIT), lambda: files.create(COMMIT, b""), lambda: files.list("")):
        with pytest.raises(UnavailableError, match="no-such-bucket"):
            call()


def test_credentials_are_in_no_error_and_no_name(bucket, meddler):
    """A server's refusal that repeats the access key is not passed on, not even in a traceback."""

    def before(call):
        said = f"<Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><X>{SECRET_KEY}</X>"
        call.status, call.answer = 403, f"<Error>{said}</Error>".encode()

    meddler.before = before
    files = quick(bucket, meddler.url)
    for call in (lambda: files.read(COMMIT), lambda: files.create(COMMIT, b"x"), lambda: files.list("")):
        with pytest.raises(UnavailableError, match="403 SignatureDoesNotMatch: check the credentials") as caught:
            call()
        told = "".join(traceback.format_exception(caught.value)) + repr(files) + repr(vars(files))
        for secret in (ACCESS_KEY, SECRET_KEY):
            assert secret not in told


def test_a_reader_asks_for_the_parts_that_it_needs(bucket, meddler):
    """One column of one row group of a large file does not move the file."""
    numbers = pa.array(range(400_000))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": numbers, "t": numbers.cast(pa.string())}), sink, row_group_size=40_000)
    quick(bucket).create("events/a", memoryview(sink.getvalue()))
    with quick(bucket, meddler.url).reader("events/a") as reader:
        read = pq.ParquetFile(reader).read_row_group(2, columns=["n"])
    assert read.column("n")[0].as_py() == 80_000
    assert sum(len(call.answer) for call in meddler.calls) < sink.getvalue().size / 3
    assert len(meddler.calls) <= 3


def test_a_part_that_fails_is_an_error_of_the_file(bucket, meddler):
    """A read that fails in the middle is an OSError, as of any file."""
    quick(bucket).create("events/a", bytes(600_000))
    with quick(bucket, meddler.url, retry_s=0.2).reader("events/a") as reader:

        def before(call):
            call.status = 500

        meddler.before = before
        with pytest.raises(OSError, match="500"):
            reader.read(10)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://x", "s3://Bucket/x", "https://bucket/x", "s3://bucket/../x", "s3://bucket/x?a=b", "bucket/x"]
)
def test_a_wrong_url_is_a_wrong_setting(url):
    """What is no place in a bucket is refused before anything is sent."""
    with pytest.raises(ConfigError):
        S3Files(url)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("s3://My_Bucket/x", r"'My_Bucket' is no bucket's name; that is 3 to 63 lower-case letters"),
        ("s3://ab/x", r"'ab' is no bucket's name"),
        ("s3://a..b/x", r"'a..b' is no bucket's name"),
        ("s3:///x", r"'' is no bucket's name"),
        ("s3://bucket/../x", r"the prefix '../x' cannot be used"),
        ("s3://bucket/a//b", r"the prefix 'a//b' cannot be used"),
        ("s3:/bucket/x", r"with two slashes"),
        ("gs://bucket/x", r"^gs://…: evidence lies in a folder or at s3://BUCKET/PREFIX"),
        ("s3://me:hidden@bucket/x", r"^s3://bucket…: write s3://BUCKET/PREFIX, and nothing else in it"),
    ],
)
def test_a_bad_name_of_a_bucket_is_told_in_one_sentence(place, told):
    """The error says which part is wrong and what is right, in one line and without a credential."""
    with pytest.raises(ConfigError, match=told) as caught:
        open_files(place)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_an_endpoint_is_encrypted_unless_it_is_this_machine(monkeypatch):
    """Evidence goes off this machine with TLS, whoever names the server, unless the operator allows otherwise."""
    S3Files("s3://bucket/x", endpoint="http://localhost:9000")
    S3Files("s3://bucket/x", endpoint="http://minio.internal:9000", allow_plaintext=True)
    with pytest.raises(ConfigError, match="without encryption"):
        S3Files("s3://bucket/x", endpoint="http://minio.internal:9000")
    with pytest.raises(ConfigError) as caught:
        S3Files("s3://bucket/x", endpoint="https://user:pass-word@minio.internal")
    assert "pass-word" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.internal:9000")
    with pytest.raises(ConfigError, match="without encryption"):
        S3Files("s3://bucket/x")


def credentials(path, text, mode=0o600):
    """Write a credentials file."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_credentials_come_from_a_file_that_may_change(bucket, meddler, tmp_path, monkeypatch):
    """A section of a credentials file says who writes, instead of the environment, and is read anew."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    text = "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = b\n[w]\naws_access_key_id = AKIAWRITER\n"
    path = credentials(tmp_path / "credentials", text + "aws_secret_access_key = c%d\naws_session_token = tok\n")
    files = quick(bucket, meddler.url, credentials_file=path, profile="w")
    files.create(COMMIT, b"x")
    sent = meddler.calls[-1].headers
    assert "Credential=AKIAWRITER/" in sent["authorization"]
    assert sent["x-amz-security-token"] == "tok"
    assert "AKIA" not in repr(files) + repr(vars(files))
    provider = CredentialsFile(path, "w")
    assert provider()["secret_access_key"] == "c%d"  # noqa: S105 - what the test wrote
    credentials(path, text.replace("AKIAWRITER", "AKIANEXT") + "aws_secret_access_key = d\n")
    assert provider()["access_key_id"] == "AKIANEXT"


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (None, 0, "cannot read the credentials file"),
        ("[default]\naws_access_key_id = a\naws_secret_access_key = hidden\n", 0o644, "chmod 600"),
        ("[default]\naws_access_key_id = hidden\n", 0o600, r"section \[default\] must say"),
        ("[other]\naws_access_key_id = a\naws_secret_access_key = hidden\n", 0o600, r"section \[default\] must say"),
        ("hidden hidden\n", 0o600, "no AWS credentials file"),
        ("[default]\naws_secret_access_key hidden\n", 0o600, "no AWS credentials file"),
    ],
)
def test_a_wrong_credentials_file_is_a_wrong_setting(tmp_path, text, mode, told):
    """What cannot be used is told at once, and what is in the file is not."""
    path = tmp_path / "credentials"
    if text is not None:
        credentials(path, text, mode)
    with pytest.raises(ConfigError, match=told) as caught:
        S3Files("s3://bucket/x", credentials_file=path)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_a_place_is_a_folder_or_a_bucket(bucket, tmp_path):
    """What people write as a place becomes the right kind of files."""
    assert isinstance(open_files(tmp_path), LocalFiles)
    assert open_files("data/evidence").url("a") == str(Path("data/evidence/a"))
    files = open_files(bucket.url, BucketAccess(endpoint=bucket.endpoint))
    files.create(COMMIT, b"x")
    assert files.url(COMMIT) == f"s3://{bucket.name}/evidence/{COMMIT}"
    for place in ("file:///data", "gs://bucket/x"):
        with pytest.raises(ConfigError):
            open_files(place)
