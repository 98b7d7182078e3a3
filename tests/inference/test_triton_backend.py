"""The Triton backend against a real server with the real small model."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_grpc
import uvloop
from processes import until_busy, until_idle
from triton_fixtures import NEVER_LOADS, free_port, installed_gguf, running_triton

from inference.answer import Answer
from inference.backend import Message, ModelCall
from inference.errors import Ambiguous, Malformed, NotSent, Rejected, Unavailable
from inference.inprocess import InProcessBackend
from inference.triton import TritonBackend, _take, judge

pytestmark = pytest.mark.triton

QUESTION = ModelCall(
    call_id="a-1",
    model="smollm2",
    messages=(Message("system", "Answer briefly."), Message("user", "What is the capital of France?")),
    max_tokens=16,
    timeout_s=30.0,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
ENDLESS = replace(QUESTION, messages=(Message("user", "Tell a very long story about a king."),), max_tokens=1500)


@pytest.fixture
async def backend(triton: str):
    """A backend on the session's server."""
    made = TritonBackend(triton, models=["smollm2"])
    yield made
    await made.close()


async def test_an_answer_is_whole(backend: TritonBackend):
    """An answer has its text, ending, provider, model and counts as Triton gives them."""
    answer = await backend.complete(QUESTION)
    assert answer.text.strip()
    assert (answer.provider, answer.model) == ("triton", "smollm2")
    assert answer.finish_reason in ("stop", "length")
    assert 1 <= answer.output_tokens <= 16
    assert answer.input_tokens > 10


async def test_tokens_are_streamed(backend: TritonBackend):
    """The first token comes long before the last."""
    started = time.perf_counter()
    answer = await backend.complete(replace(ENDLESS, max_tokens=60))
    assert answer.first_chunk_s is not None
    assert answer.first_chunk_s < 0.8 * (time.perf_counter() - started)
    assert answer.finish_reason == "length"
    assert answer.output_tokens == 60


async def test_triton_and_in_process_agree(backend: TritonBackend):
    """At temperature 0 the same words come from Triton and from the model in process, time after time."""
    in_process = InProcessBackend({"smollm2": installed_gguf()})
    try:
        answers = [await each.complete(QUESTION) for each in (backend, in_process, backend)]
    finally:
        await in_process.close()
    assert len({(answer.text, answer.input_tokens, answer.output_tokens) for answer in answers}) == 1
    assert [answer.provider for answer in answers] == ["triton", "in-process", "triton"]


async def test_several_requests_run_side_by_side(backend: TritonBackend):
    """A short question is answered while a long story is being told."""
    story = asyncio.create_task(backend.complete(ENDLESS))
    await asyncio.sleep(0.3)
    await backend.complete(replace(QUESTION, max_tokens=2))
    assert not story.done()
    story.cancel()
    with pytest.raises(asyncio.CancelledError):
        await story


async def test_cancelling_stops_the_model(backend: TritonBackend, triton_server):
    """Soon after its caller went away the model's process uses no CPU any more, long before the story's end."""
    model = _model_process(triton_server)
    story = asyncio.create_task(backend.complete(ENDLESS))
    await until_busy(model)
    assert not story.done()
    story.cancel()
    with pytest.raises(asyncio.CancelledError):
        await story
    await until_idle(model)


async def test_a_late_answer_is_ambiguous(backend: TritonBackend):
    """When the time is up the call's state is unknown, not failed."""
    with pytest.raises(Ambiguous) as late:
        await backend.complete(replace(ENDLESS, timeout_s=0.4))
    assert late.value.code == "timeout"


async def test_too_long_a_prompt_is_rejected(backend: TritonBackend):
    """A prompt beyond the model's context is the call's fault, and the sentence has both numbers."""
    with pytest.raises(Rejected, match=r"\d+ tokens and the model has room for 2048") as wrong:
        await backend.complete(replace(QUESTION, messages=(Message("user", "word " * 3000),)))
    assert wrong.value.code == "prompt_too_long"


async def test_no_tokens_wanted_is_rejected(backend: TritonBackend):
    """A bound below one token is the call's fault."""
    with pytest.raises(Rejected) as wrong:
        await backend.complete(replace(QUESTION, max_tokens=0))
    assert wrong.value.code == "bad_request"


async def test_an_unknown_model_is_rejected(backend: TritonBackend):
    """A model that the server does not have is a wrong route, not an outage."""
    with pytest.raises(Rejected) as wrong:
        await backend.complete(replace(QUESTION, model="nobody"))
    assert wrong.value.code == "unknown_model"


async def test_a_model_that_is_not_loaded_is_unavailable(backend: TritonBackend):
    """A model whose weights could not be loaded may be there later."""
    with pytest.raises(Unavailable) as down:
        await backend.complete(replace(QUESTION, model=NEVER_LOADS))
    assert down.value.code == "model_not_ready"


async def test_no_server_is_not_sent():
    """Where nobody listens, provably nothing was sent, and it shows at once."""
    backend = TritonBackend(f"127.0.0.1:{free_port()}", models=["smollm2"])
    started = time.perf_counter()
    for _ in range(2):
        with pytest.raises(NotSent):
            await backend.complete(QUESTION)
    with pytest.raises(NotSent):
        await backend.ready()
    assert time.perf_counter() - started < 5
    await backend.close()


async def test_ready_names_server_and_model(backend: TritonBackend):
    """`ready` says which Triton is there with which model."""
    assert await backend.ready() == "Triton 2.51.0 with smollm2"


def test_it_works_under_uvloop(triton: str):
    """The backend answers under uvloop, which the worker runs on."""

    async def once() -> str:
        backend = TritonBackend(triton)
        try:
            return (await backend.complete(replace(QUESTION, max_tokens=3))).text
        finally:
            await backend.close()

    assert uvloop.run(once())


async def test_a_server_that_dies_on_the_way_leaves_the_call_ambiguous(tmp_path):
    """When the server is killed in mid-answer the call is unknown; the next one is provably not sent."""
    with running_triton(tmp_path) as server:
        backend = TritonBackend(server.address)
        await backend.complete(replace(QUESTION, max_tokens=1))
        model = _model_process(server)
        story = asyncio.create_task(backend.complete(ENDLESS))
        await until_busy(model)
        _server_process(server).kill()
        with pytest.raises(Ambiguous):
            await story
        await asyncio.sleep(0.5)  # until the connection is closed, a call may have been on its way
        with pytest.raises(NotSent):
            await backend.complete(QUESTION)
        await backend.close()
        _, alive = psutil.wait_procs([model], timeout=10)
        assert not alive, "the model's process outlived its server"
        memory = Path("/dev/shm")  # noqa: S108 - Triton's own place for it
        assert list(memory.glob(f"{server.shared_memory}*"))
        server.tidy()
        assert not list(memory.glob(f"{server.shared_memory}*"))


async def test_a_dead_model_process_is_unavailable_and_not_ready(tmp_path):
    """When the model's own process dies the server lives on: calls are unavailable, and `ready` says so."""
    with running_triton(tmp_path) as server:
        backend = TritonBackend(server.address, models=["smollm2"])
        assert "smollm2" in await backend.ready()
        _model_process(server).kill()
        with pytest.raises(Unavailable):
            await backend.complete(QUESTION)
        with pytest.raises(NotSent, match="not healthy"):
            await backend.ready()
        await backend.close()
        _server_process(server).kill()  # it would wait for its dead model before it ends


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        ("UNAVAILABLE", "failed to connect to all addresses; last error: refused", NotSent),
        ("UNAVAILABLE", "DNS resolution failed for triton:8001", NotSent),
        ("UNAVAILABLE", "Socket closed", Ambiguous),
        ("UNAVAILABLE", "Request for unknown model: 'm' has no available versions", Unavailable),
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", Unavailable),
        ("INTERNAL", "Stub process 'm_0_0' is not healthy.", Unavailable),
        ("INTERNAL", "engine_failed: no memory", Unavailable),
        ("INVALID_ARGUMENT", "expected 1 inputs but got 2", Rejected),
        ("INVALID_ARGUMENT", "prompt_too_long: 9 of 8", Rejected),
        ("", "Request for unknown model: 'm' is not found", Rejected),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Ambiguous),
        ("CANCELLED", "the server shuts down", Ambiguous),
        ("UNKNOWN", "", Ambiguous),
        ("", "anything else", Ambiguous),
    ],
)
def test_only_what_is_proven_is_retryable(status: str, details: str, kind: type[Exception]):
    """A failed stream is retryable only where the server or the connection proved it; else it is ambiguous."""
    assert type(judge(status, details)) is kind


def test_an_empty_tensor_is_no_answer():
    """An empty output, as a stub with numpy 2 gives, is malformed, never an empty success."""
    response = triton_grpc.service_pb2.ModelInferResponse(model_name="m")
    tensor = response.outputs.add(name="text", datatype="BYTES")
    tensor.shape.append(0)
    response.raw_output_contents.append(b"")
    result = triton_grpc.InferResult(response)
    assert result.as_numpy("text").size == 0
    with pytest.raises(Malformed):
        _take(Answer("triton"), result, lambda: 0.0)


def test_an_ending_without_counts_is_no_answer():
    """A last response that lacks its token counts is malformed."""
    response = triton_grpc.service_pb2.ModelInferResponse(model_name="m")
    response.outputs.add(name="finish_reason", datatype="BYTES").shape.append(1)
    word = np.array([b"stop"], dtype=np.object_)
    response.raw_output_contents.append(len(word[0]).to_bytes(4, "little") + word[0])
    with pytest.raises(Malformed):
        _take(Answer("triton"), triton_grpc.InferResult(response), lambda: 0.0)


@pytest.mark.parametrize("pieces", [[], ["text"]])
def test_an_answer_without_text_or_end_is_malformed(pieces: list[str]):
    """No text with an end, or a text without one: neither is an answer."""
    answer = Answer("triton")
    for piece in pieces:
        answer.piece(piece, lambda: 0.1)
    if not pieces:
        answer.end("stop", 3, 1)
    with pytest.raises(Malformed):
        answer.completion("m")


def _server_process(server) -> psutil.Process:
    mine = f"--grpc-port={server.grpc_port}"
    return next(child for child in psutil.Process().children() if mine in child.cmdline())


def _model_process(server) -> psutil.Process:
    return next(child for child in _server_process(server).children() if "stub" in child.cmdline()[0])
