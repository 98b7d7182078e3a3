"""SmolLM2-135M-Instruct as a decoupled model of Triton's Python backend: one request in, its text out in pieces.

Inputs and outputs are written down in `../config.pbtxt`. Every answer ends with one response that says how it ended;
every failure goes back as an error whose text begins with a code (`prompt_too_long: ...`), never as an empty success.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton puts it there

sys.path.insert(0, str(Path(__file__).parent))
from engine import Engine, GenerationError, Options, find_gguf, quiet_signals


class TritonPythonModel:
    """What the Python backend looks for by this name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; an error here leaves the model not ready and the server up."""
        if int(np.__version__.split(".")[0]) >= 2:  # noqa: PLR2004 - the major version
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} is installed for Triton's interpreter; its Python backend needs numpy 1: "
                "with numpy 2 it answers with empty tensors that count as success"
            )
        parameters = json.loads(args["model_config"]).get("parameters", {})
        asked = {name: value["string_value"] for name, value in parameters.items()}
        # The environment wins over config.pbtxt, so that one repository serves machines that keep the file elsewhere
        # (a container's volume, say) without an edit.
        gguf = find_gguf(os.environ.get("WAYBILL_GGUF") or asked.get("gguf", ""))
        options = Options(
            **{name: int(asked[name]) for name in ("threads", "slots", "context") if asked.get(name)},
        )
        self._engine = Engine(gguf, options)
        quiet_signals()
        threading.Thread(target=_end_with_server, args=(os.getppid(),), name="end with server", daemon=True).start()
        self._pool = ThreadPoolExecutor(options.slots, thread_name_prefix="generate")
        self._free = threading.Semaphore(options.slots)

    def execute(self, requests: list[Any]) -> None:
        """Start each request, and return once there is room for another: what waits, waits in Triton's own queue."""
        for request in requests:
            self._free.acquire()
            self._pool.submit(self._answer, request, request.get_response_sender())
        self._free.acquire()
        self._free.release()

    def finalize(self) -> None:
        """Let the running generations end; the server no longer accepts any."""
        self._pool.shutdown()

    def _answer(self, request: Any, sender: Any) -> None:
        try:
            try:
                ending = self._engine.generate(
                    _messages(request),
                    max_tokens=int(_scalar(request, "max_tokens", 256)),
                    temperature=float(_scalar(request, "temperature", 0.0)),
                    on_text=lambda text: sender.send(pb_utils.InferenceResponse([_text("text", text)])),
                    cancelled=sender.is_cancelled,
                )
                last = pb_utils.InferenceResponse(
                    [
                        _text("finish_reason", ending.finish_reason),
                        pb_utils.Tensor("input_tokens", np.array([ending.input_tokens], dtype=np.int32)),
                        pb_utils.Tensor("output_tokens", np.array([ending.output_tokens], dtype=np.int32)),
                    ]
                )
            except GenerationError as error:
                last = _failure(str(error), error.code)
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is told
                last = _failure(f"engine_failed: {type(error).__name__}: {error}", "engine_failed")
            sender.send(last, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            self._free.release()


def _end_with_server(server: int) -> None:
    """End at once when the server is gone: a busy stub does not notice by itself, and would generate on for nobody."""
    while os.getppid() == server:
        time.sleep(0.5)
    os._exit(1)


def _messages(request: Any) -> list[dict[str, str]]:
    tensor = pb_utils.get_input_tensor_by_name(request, "messages").as_numpy()
    try:
        messages: list[dict[str, str]] = json.loads(tensor.reshape(-1)[0])
    except (ValueError, IndexError) as error:
        raise GenerationError("bad_request", f"the input `messages` is no JSON: {error}") from None
    return messages


def _scalar(request: Any, name: str, default: float) -> float:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy().reshape(-1)[0].item()


def _text(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))


def _failure(message: str, code: str) -> Any:
    # Triton's interpreter adds TritonError to the module only after this file is imported: no table at module level.
    errors = pb_utils.TritonError
    status = {"bad_request": errors.INVALID_ARG, "prompt_too_long": errors.INVALID_ARG, "cancelled": errors.CANCELLED}
    return pb_utils.InferenceResponse(error=errors(message, status.get(code, errors.INTERNAL)))
