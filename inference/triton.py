"""A model on a Triton server, over gRPC streams: one stream for each call, its text in pieces.

The model speaks the inputs and outputs of `model_repository/smollm2/config.pbtxt`. Nothing is retried here.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import grpc
import numpy as np
import tritonclient.grpc as triton_protocol
import tritonclient.grpc.aio as triton_grpc
from tritonclient.utils import InferenceServerException

from inference.answer import Answer, told
from inference.backend import Completion, Message, ModelCall
from inference.errors import Ambiguous, BackendError, Malformed, NotSent, Rejected, Unavailable
from inference.triton_server import CHANNEL, READY_TIMEOUT_S

PROVIDER = "triton"
"""Who answers, in receipts and evidence."""

MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message either way; far above any text that a model reads."""

_UNREACHED = ("failed to connect to all addresses", "DNS resolution failed", "Name resolution failure")
_NOT_LOADED = ("has no available versions", "is not at ready state", "not ready", "Exceeds maximum queue size")


class TritonBackend:
    """Implements `inference.backend.Backend` over a Triton server.

    Args:
        address: host and port of the server's gRPC service.
        models: the models that `ready` asks for.
        clock: seconds that only go up.
    """

    def __init__(
        self, address: str, *, models: Sequence[str] = (), clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._address = address
        self._models = tuple(models)
        self._clock = clock
        self._client: triton_grpc.InferenceServerClient | None = None
        self._closed = False

    async def complete(self, call: ModelCall) -> Completion:
        """Ask once; see `inference.backend.Backend.complete`."""
        client = self._connected()
        started = self._clock()
        answer = Answer(PROVIDER)
        model = call.model
        headers = {"triton_grpc_error": "true"}  # errors come with their status, not as text alone
        if call.traceparent:
            headers["traceparent"] = call.traceparent
        stream = client.stream_infer(_once(_request(call)), stream_timeout=call.timeout_s, headers=headers)
        try:
            async for result, error in stream:
                if error is not None:
                    raise judge("", str(error.message()))
                model = result.get_response().model_name or model
                _take(answer, result, lambda: self._clock() - started)
        except grpc.aio.AioRpcError as error:
            raise judge(error.code().name, error.details() or "") from None
        finally:
            stream.cancel()  # nothing where the stream has ended; else the model stops
        return answer.completion(model)

    async def ready(self) -> str:
        """Say who is there, proven by one generated token of each model: a dead one still counts as loaded.

        Raises:
            NotSent: nobody is, or a model does not answer.
        """
        client = self._connected()
        try:
            server = await client.get_server_metadata(client_timeout=READY_TIMEOUT_S)
            for model in self._models:
                await self.complete(ModelCall("ready", model, (Message("user", "Hello"),), 1, 10 * READY_TIMEOUT_S))
        except (InferenceServerException, grpc.aio.AioRpcError) as error:
            raise NotSent("not_ready", f"no Triton server at {self._address}: {error}") from None
        except BackendError as error:
            raise NotSent("not_ready", f"Triton at {self._address}: {error}", provider=PROVIDER) from None
        return f"Triton {server.version} with {', '.join(self._models) or 'no model asked for'}"

    async def close(self) -> None:
        """Close the connection; running calls end."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _connected(self) -> triton_grpc.InferenceServerClient:
        if self._closed:
            raise NotSent("closed", "this backend is closed")
        if self._client is None:  # made in the loop that uses it, which gRPC binds it to
            size = [("grpc.max_send_message_length", MESSAGE_BYTES), ("grpc.max_receive_message_length", MESSAGE_BYTES)]
            self._client = triton_grpc.InferenceServerClient(self._address, channel_args=[*CHANNEL, *size])
        return self._client


def judge(status: str, details: str) -> BackendError:
    """Say what a failed stream means for the caller.

    Only what provably happened is retryable: a server that is not listening, or one that said so itself. A connection
    lost on the way is `Ambiguous`, for a local model too; the caller knows that nothing was disclosed.

    Args:
        status: the gRPC status' name ("" where only a text came).
        details: the text with it.
    """
    if status == "UNAVAILABLE" and details.startswith(_UNREACHED):
        return NotSent("connect_failed", f"no Triton server answers: {details}")
    own = told(details, PROVIDER)
    if own is not None:
        return own
    if any(sign in details for sign in _NOT_LOADED):
        return Unavailable("model_not_ready", details, provider=PROVIDER)
    if "is not found" in details or status == "NOT_FOUND":
        return Rejected("unknown_model", details, provider=PROVIDER)
    match status:
        case "INVALID_ARGUMENT" | "UNIMPLEMENTED" | "OUT_OF_RANGE":
            return Rejected("invalid_request", details, provider=PROVIDER)
        case "INTERNAL" | "RESOURCE_EXHAUSTED":
            return Unavailable("model_failed", details, provider=PROVIDER)
        case "DEADLINE_EXCEEDED":
            return Ambiguous("timeout", "no whole answer came in time", provider=PROVIDER)
        case _:
            return Ambiguous("connection_lost", f"the answer was lost: {details or status}", provider=PROVIDER)


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


def _request(call: ModelCall) -> dict[str, Any]:
    messages = json.dumps([{"role": message.role, "content": message.content} for message in call.messages])
    return {
        "model_name": call.model,
        "request_id": call.call_id,
        "inputs": [
            _tensor("messages", "BYTES", np.array([messages.encode()], dtype=np.object_)),
            _tensor("max_tokens", "INT32", np.array([call.max_tokens], dtype=np.int32)),
            _tensor("temperature", "FP32", np.array([call.temperature or 0.0], dtype=np.float32)),
        ],
    }


def _tensor(name: str, kind: str, values: np.ndarray[Any, Any]) -> triton_protocol.InferInput:
    tensor = triton_protocol.InferInput(name, list(values.shape), kind)
    tensor.set_data_from_numpy(values)
    return tensor


def _take(answer: Answer, result: triton_protocol.InferResult, elapsed: Callable[[], float]) -> None:
    """Add one response to the answer.

    Raises:
        Malformed: an output is there and empty, or of the wrong type.
    """
    found: dict[str, object] = {}
    for output in result.get_response().outputs:
        values = cast("np.ndarray[Any, Any]", result.as_numpy(output.name))
        if values is None or values.size != 1:
            raise Malformed("empty_tensor", f"Triton answered with an empty output `{output.name}`", provider=PROVIDER)
        found[output.name] = values.reshape(-1)[0]
    text = found.get("text")
    if isinstance(text, bytes):
        answer.piece(text.decode(errors="replace"), elapsed)
    if "finish_reason" in found:
        try:
            reason = cast("bytes", found["finish_reason"]).decode()
            answer.end(reason, int(cast("int", found["input_tokens"])), int(cast("int", found["output_tokens"])))
        except (KeyError, AttributeError, ValueError) as error:
            raise Malformed("bad_ending", f"Triton's last response is not whole: {error}", provider=PROVIDER) from None
